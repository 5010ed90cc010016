"""Pictures of attention and latents, one call each, as PNG files. Needs the extra ``pictures`` (matplotlib).

    draw_image_attention(image, weights, "image.png")       weights laid over an image
    draw_text_attention(text, weights, "text.png")          characters or tokens on their weights
    draw_unit_attention(units, mask, weights, "units.png")  units on the battlefield
    draw_modality_attention(weights, ranges, "share.png")   what each modality receives
    draw_attention_matrix(weights, "layer.png")             queries by inputs, head by head
    draw_latents(latents, "latents.png")                    latents over blocks or time steps
    look_at_policy(policy, observation, "unit.png")         what a unit attends to, and what it would do

What to draw is found by :mod:`perceiver_policy.looking`. Arguments are torch tensors. A file appears whole or
not at all, and what does not fit is refused before anything is drawn.
"""

from perceiver_policy.pictures.attention import draw_attention_matrix, draw_modality_attention
from perceiver_policy.pictures.canvas import MissingExtra, require_pictures
from perceiver_policy.pictures.image import draw_image_attention
from perceiver_policy.pictures.latents import draw_latents
from perceiver_policy.pictures.policy import look_at_policy
from perceiver_policy.pictures.text import draw_text_attention
from perceiver_policy.pictures.units import draw_unit_attention

__all__ = [
    "MissingExtra",
    "draw_attention_matrix",
    "draw_image_attention",
    "draw_latents",
    "draw_modality_attention",
    "draw_text_attention",
    "draw_unit_attention",
    "look_at_policy",
    "require_pictures",
]
