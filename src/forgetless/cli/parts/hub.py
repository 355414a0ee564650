"""Models of transformers: from a folder (config.json, .safetensors, a tokenizer's files) or by their name on the hub.

Weights come from safetensors alone, and no code that a model brings along is run.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forgetless.errors import ForgetlessError, brief
from forgetless.lab.finetuning.loaded import Kind, Loaded
from forgetless.lab.networks.parts.normalize import Normalize
from forgetless.model.parameters import listing

#: How the name of a class in config.json ends → what such a model does, and the class that loads it.
_ARCHITECTURES = {
    "ForCausalLM": (Kind.CAUSAL_LM, "AutoModelForCausalLM"),
    "LMHeadModel": (Kind.CAUSAL_LM, "AutoModelForCausalLM"),
    "ForSequenceClassification": (Kind.TEXT_CLASSIFIER, "AutoModelForSequenceClassification"),
    "ForImageClassification": (Kind.IMAGE_CLASSIFIER, "AutoModelForImageClassification"),
    "Model": (Kind.TEXT_ENCODER, "AutoModel"),
}


def load(place: str, *, labels: bool = False) -> Loaded:
    """The model in a folder, or of that name on the hub, with its tokenizer or the scale of its pictures.

    Args:
        place: a folder, or the name of a repository.
        labels: whether it is to learn labels: an encoder of texts is then loaded as a classifier without classes.

    Raises:
        ForgetlessError: transformers is not installed, the model cannot be had, it is of a kind that is not served,
            it has no safetensors, or it lacks weights or a tokenizer.
    """
    try:
        import transformers
    except ImportError as error:
        raise ForgetlessError("transformers is not installed: pip install 'forgetless[transformers]'.") from error
    folder = Path(place).expanduser()
    if folder.is_file():
        raise ForgetlessError(
            f"hf:{place} is a file: name the folder that it is in, which also has config.json; only .safetensors files "
            "are read."
        )
    if not folder.is_dir() and (place[0] in "./~" or place.count("/") > 1):
        raise ForgetlessError(f"hf:{place} cannot be loaded: there is no folder {place}{_near(folder) or '.'}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ForgetlessError(f"hf:{place} cannot be loaded: {place} has no config.json.")
    source = str(folder) if folder.is_dir() else place
    if not folder.is_dir():
        offline_without_network()
    with _told(place, "" if folder.is_dir() else f"; and there is no folder {place} here{_near(folder)}"):
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    architecture = (config.architectures or ["none"])[0]
    kind, auto = next(
        (found for ending, found in _ARCHITECTURES.items() if architecture.endswith(ending)), (Kind.OTHER, "")
    )
    if not auto:
        known = listing(ending for ending in _ARCHITECTURES if ending != "Model")
        raise ForgetlessError(f"hf:{place} is a {architecture}, which is not served; classes that end in {known} are.")
    if kind is Kind.TEXT_ENCODER and labels:
        auto = "AutoModelForSequenceClassification"
    network = _network(place, source, getattr(transformers, auto), new_head=kind is Kind.TEXT_ENCODER)
    classes = _classes(config) if kind in (Kind.TEXT_CLASSIFIER, Kind.IMAGE_CLASSIFIER) else ()
    if kind is Kind.IMAGE_CLASSIFIER:
        with _told(place):
            reader: Any = transformers.AutoImageProcessor
            processor = reader.from_pretrained(source, trust_remote_code=False)
        normalize, size = _scale(processor, network)
        return Loaded(f"hf:{place}", network, kind, _save(processor), classes, normalize=normalize, size=size)
    tokenizer = _tokenizer(place, source, transformers)
    own: Any = network.config
    if own.pad_token_id is None:
        own.pad_token_id = tokenizer.pad_token_id  # by which a decoder finds the last token of a text
    return Loaded(f"hf:{place}", network, kind, _save(tokenizer), classes, tokenizer=tokenizer)


def offline_without_network() -> None:
    """Let only the cache be asked where the hub cannot be reached, which else is tried again for half a minute."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    session: Any = importlib.import_module("huggingface_hub.utils").get_session
    if not constants.HF_HUB_OFFLINE:
        try:
            session().head(constants.ENDPOINT, timeout=5)
        except Exception:  # whatever its client raises
            constants.HF_HUB_OFFLINE = True


def _near(folder: Path) -> str:
    """The folder of a model that may have been meant."""
    beside = [each.parent for each in folder.parent.glob("*/config.json")] if folder.parent.is_dir() else []
    close = difflib.get_close_matches(folder.name, [each.name for each in beside], 1)
    return f"; did you mean hf:{folder.parent / close[0]}?" if close else ""


def _network(place: str, source: str, auto: Any, *, new_head: bool) -> nn.Module:
    # Layers that the files do not hold, of a new head, begin alike whenever the model is loaded.
    with _told(place, "; only .safetensors files are read"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, info = auto.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    if info["missing_keys"] and not new_head:
        raise ForgetlessError(f"hf:{place} lacks the weights {listing(sorted(info['missing_keys']))}.")
    assert isinstance(network, nn.Module)
    return network.eval()


def _tokenizer(place: str, source: str, transformers: Any) -> Any:
    with _told(place, "; a model of texts needs its tokenizer's files beside it", "its tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ForgetlessError(f"the tokenizer of hf:{place} has neither a padding nor an end token; add one.")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _classes(config: Any) -> tuple[str, ...]:
    """The names of the classes; none where they are transformers' own LABEL_0, LABEL_1, …"""
    names = tuple(str(config.id2label[number]) for number in sorted(config.id2label))
    return () if all(name == f"LABEL_{number}" for number, name in enumerate(names)) else names


def _scale(processor: Any, network: Any) -> tuple[nn.Module, int]:
    """How pictures of 0 … 255 become what the network takes, and their pixels per side."""
    factor = processor.rescale_factor if getattr(processor, "do_rescale", True) else 1.0
    normalized = getattr(processor, "do_normalize", True)
    mean, std = (processor.image_mean, processor.image_std) if normalized else ([0.0] * 3, [1.0] * 3)
    scaled = [[each / factor for each in channels] for channels in (mean, std)]
    size = getattr(processor, "crop_size", None) or processor.size or {}
    pixels = next((size[key] for key in ("height", "shortest_edge") if size.get(key)), 224)
    return Normalize((*scaled[0],), (*scaled[1],)), int(pixels)  # type: ignore[arg-type]


def _save(beside: Any) -> Any:
    def save(network: Any, classes: Sequence[str], folder: Path) -> None:
        """Write the model as transformers does, with its tokenizer or image processor."""
        if classes:
            network.config.id2label = dict(enumerate(classes))
            network.config.label2id = {name: number for number, name in enumerate(classes)}
        with _told(str(folder)):
            try:
                network.save_pretrained(folder)
                beside.save_pretrained(folder)
            except Exception as error:
                raise ForgetlessError(f"{folder} cannot be written: {brief(error)}.") from error

    return save


@contextlib.contextmanager
def _told(place: str, advice: str = "", what: str = "it") -> Iterator[None]:
    """Turn what transformers and the hub raise into a sentence; their own reports and bars are kept back."""
    hub: Any = importlib.import_module("huggingface_hub.utils")
    logging: Any = importlib.import_module("transformers.utils.logging")

    hub.disable_progress_bars()
    hub.logging.set_verbosity(50)  # it counts its attempts
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ForgetlessError:
        raise
    except Exception as error:
        raise ForgetlessError(
            f"hf:{place}: {what} could not be loaded: {brief(error)}{advice}{'.' * (not advice.endswith('?'))}"
        ) from error
