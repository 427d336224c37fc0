"""Data and weights that runs need and that can be fetched: what of them is missing here, and bringing it."""

from collections.abc import Iterable

from finetune.config import Config
from finetune.data import catalog
from finetune.errors import DownloadError, NotDownloadedError
from finetune.models import weights
from finetune.resolve import resolve
from finetune.system.download import RequiredFile, missing_files_message


def missing_files(configs: Iterable[Config]) -> list[RequiredFile]:
    """Return the files that these runs need and that are not on this machine."""
    resolved = [resolve(config) for config in configs]
    asked = {
        (config.backbone, config.weights): weights.required_weights(config.backbone, config.weights)
        for config in resolved
    }
    has_data = catalog.find_inaturalist() is not None or all(config.data != catalog.INATURALIST for config in resolved)
    return [*([] if has_data else [catalog.required_archive()]), *(one for one in asked.values() if one is not None)]


def fetch_missing(configs: Iterable[Config]) -> None:
    """Fetch what is missing, each file once; several processes can do that at the same time.

    Raises:
        DownloadError: something can't be fetched. The message has all that is missing, and how to bring it.
        NoRoomError: the disk has no room for it.
    """
    configs = list(configs)
    try:
        if any(config.data == catalog.INATURALIST for config in configs):
            catalog.fetch_inaturalist()
        for backbone, weight in sorted({(known.backbone, known.weights) for known in map(resolve, configs)}):
            if weights.required_weights(backbone, weight) is not None:
                weights.download_weights(backbone, weight)
    except DownloadError as error:
        raise DownloadError(f"{error}\n\n{missing_files_message(missing_files(configs))}") from error


def require_data(configs: Iterable[Config]) -> None:
    """Fetch nothing, and refuse if there are no pictures: without them it can't even be told which runs there are.

    Raises:
        MissingError: with all that is missing, weights too, and how to bring it.
    """
    configs = list(configs)
    if any(config.data == catalog.INATURALIST for config in configs) and catalog.find_inaturalist() is None:
        raise NotDownloadedError(missing_files_message(missing_files(configs)))
