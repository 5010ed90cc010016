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


def local_folder(name_or_path: str | Path, **download: Any) -> Path:
    """Where a model is on this machine; of a repository of the Hub, ``owner/name``, its files are fetched.

    Args:
        name_or_path: a repository is what looks like one and is neither a folder nor a file here.
        download: see :func:`huggingface_hub.snapshot_download`.
    """
    path = Path(name_or_path)
    if path.exists() or path.is_absolute() or str(name_or_path).count("/") != 1:
        return path
    files = [CONFIG_FILE, WEIGHTS_FILE]
    return Path(snapshot_download(str(name_or_path), allow_patterns=files, **download))


class HubModel(ModelHubMixin, library_name="perceiver-policy"):
    """A module made from its configuration alone, with a way to folders and to the Hub.

    Attributes:
        config_class: class of the configuration.
    """

    config_class: ClassVar[type[Config]]

    def optional_weights(self) -> frozenset[str]:
        """Names in the ``state_dict`` that older exports lack, and that loading them fills in: none."""
        return frozenset()

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
        folder = local_folder(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return cast(Self, load_model(cast(type[Exportable], cls), folder, device=device))

    def _save_pretrained(self, save_directory: Path) -> None:
        # What the mixin keeps it would write to a second file, config.json, which nothing reads.
        self._hub_mixin_config = None
        save_model(cast(Exportable, self), save_directory)
