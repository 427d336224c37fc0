"""Finds and downloads the data and weights that runs need."""

from collections.abc import Iterable

from finetune.config import Config
from finetune.data import catalog
from finetune.errors import DownloadError, NotDownloadedError
from finetune.models import weights
from finetune.resolve import resolve
from finetune.system.download import RequiredFile, missing_files_message


def missing_files(configs: Iterable[Config]) -> list[RequiredFile]:
    """Return the files that these runs need and that are not on this machine."""
    configs = list(configs)
    needs_archive = _use_inaturalist(configs) and catalog.find_inaturalist() is None
    files = [weights.required_weights(*pair) for pair in _weights_of(configs)]
    return [*([catalog.required_archive()] if needs_archive else []), *(file for file in files if file is not None)]


def fetch_missing(configs: Iterable[Config]) -> None:
    """Download the missing files, each once; several processes may do so at the same time.

    Raises:
        DownloadError: with the list of all missing files, and how to bring them here by other means.
        DiskFullError: no room on the disk.
    """
    configs = list(configs)
    try:
        if _use_inaturalist(configs):
            catalog.fetch_inaturalist()
        for pair in _weights_of(configs):
            if weights.required_weights(*pair) is not None:
                weights.download_weights(*pair)
    except DownloadError as error:
        raise DownloadError(f"{error}\n\n{missing_files_message(missing_files(configs))}") from error


def prepare_weights(configs: Iterable[Config]) -> None:
    """Download, verify or (for the demo) pretrain all weights once, before runs start side by side.

    Raises:
        DownloadError: they can't be downloaded.
        DiskFullError: no room on the disk.
    """
    for pair in _weights_of(configs):
        weights.download_weights(*pair)


def require_data(configs: Iterable[Config]) -> None:
    """Raise NotDownloadedError if the data set is missing: run ids depend on its fingerprint. Downloads nothing."""
    configs = list(configs)
    if _use_inaturalist(configs) and catalog.find_inaturalist() is None:
        raise NotDownloadedError(missing_files_message(missing_files(configs)))


def _use_inaturalist(configs: Iterable[Config]) -> bool:
    return any(config.data == catalog.INATURALIST for config in configs)


def _weights_of(configs: Iterable[Config]) -> list[tuple[str, str]]:
    """Return the distinct pairs (backbone, weights), sorted."""
    return sorted({(config.backbone, config.weights) for config in map(resolve, configs)})
