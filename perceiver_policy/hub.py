"""``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` for the models of this package.

The files are those of :mod:`perceiver_policy.export_files`: config.yaml and model.safetensors, never a
pickle. From a folder, nothing is asked of the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from huggingface_hub import ModelHubMixin, snapshot_download

from perceiver_policy.config import Config
from perceiver_policy.export_files import CONFIG_FILE, WEIGHTS_FILE, Exportable, load_model, save_model


class HubModel(ModelHubMixin, library_name="perceiver-policy"):
    """A module made from its configuration alone, with a way to folders and to the Hub.

    Attributes:
        config_class: class of the configuration.
    """

    config_class: ClassVar[type[Config]]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        **model_kwargs: Any,
    ) -> Self:
        """Load a model, in evaluation mode.

        Args:
            pretrained_model_name_or_path: a folder that ``save_pretrained`` wrote, or a repository of the
                Hub, ``owner/name``.
            force_download: of a repository: again, although it is in the cache.
            token: of a repository, see :func:`huggingface_hub.snapshot_download`.
            cache_dir: of a repository, likewise.
            local_files_only: of a repository: only what is in the cache.
            revision: of a repository: branch, tag or commit.
            device: where the weights go.
            model_kwargs: none; a model is its configuration file alone.

        Raises:
            ExportError: not an export of this class, see :func:`~perceiver_policy.export_files.load_model`.
            TypeError: any ``model_kwargs``.
        """
        # The mixin's own would look for a config.json first, and warn that there is none.
        return cls._from_pretrained(
            model_id=str(pretrained_model_name_or_path),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            device=device,
            **model_kwargs,
        )

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        device: str | torch.device = "cpu",
        **model_kwargs: Any,
    ) -> Self:
        if model_kwargs:
            raise TypeError(f"unknown arguments {', '.join(model_kwargs)}: the configuration is in the file")
        folder = Path(model_id)
        if not folder.is_dir() and not folder.is_absolute() and model_id.count("/") == 1:
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=[CONFIG_FILE, WEIGHTS_FILE],
                )
            )
        return cast(Self, load_model(cast(type[Exportable], cls), folder, device=device))

    def _save_pretrained(self, save_directory: Path) -> None:
        # What the mixin keeps it would write to a second file, config.json, which nothing reads.
        self._hub_mixin_config = None
        save_model(cast(Exportable, self), save_directory)
