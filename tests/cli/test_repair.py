"""`forgetless repair` on folders as the Hub lays them out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")

from cli.conftest import Command  # noqa: E402
from forgetless import Importance  # noqa: E402
from tiny_language import wide_language_model  # noqa: E402

Refused = Callable[..., None]


def folders(shard: str = "5GB", tie: bool = True) -> tuple[torch.nn.Module, torch.nn.Module]:
    """`base` and `tuned`: a tiny language model, and it after one direction of one weight and some noise were added."""
    base, tuned = wide_language_model(tie=tie), wide_language_model(tie=tie)
    tuned.load_state_dict(base.state_dict())
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(1e-4 * torch.randn_like(parameter))
        tuned.model.layers[0].mlp.up_proj.weight.add_(0.01)
    base.bfloat16().save_pretrained("base", max_shard_size=shard)
    tuned.bfloat16().save_pretrained("tuned", max_shard_size=shard)
    return base, tuned


def test_the_result_loads_and_has_the_kept_direction_only(forgetless: Command) -> None:
    base, tuned = folders()
    done = forgetless("repair", "base", "tuned", "--out", "out", "--page", "page.html")
    assert done.exit_code == 0, done.stderr
    assert "repaired: out" in done.stdout
    model = transformers.AutoModelForCausalLM.from_pretrained("out")
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    weights = [dict(each.named_parameters())["model.layers.0.mlp.up_proj.weight"] for each in (base, tuned, model)]
    moved, left = weights[1] - weights[0], weights[2] - weights[0]
    assert float((left - moved).norm()) < 0.2 * float(moved.norm())
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight, base.model.layers[1].mlp.up_proj.weight)
    page = Path("page.html").read_text()
    assert "model.layers.0.mlp.up_proj.weight" in page
    shown = re.sub(r"<[^>]*>", "", page)
    assert "forgetless repair base tuned --out out --method dg-hard --scale 1" in shown


def test_shards_go_in_and_one_checkpoint_comes_out(forgetless: Command) -> None:
    folders(shard="20KB", tie=False)
    assert len(list(Path("tuned").glob("*.safetensors"))) > 2
    done = forgetless("repair", "base", "tuned", "--out", "out", "--method", "wise-ft", "--alpha", 1, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["written"] == len(transformers.LlamaForCausalLM.from_pretrained("out").state_dict())
    want = transformers.LlamaForCausalLM.from_pretrained("tuned").state_dict()
    got = transformers.LlamaForCausalLM.from_pretrained("out").state_dict()
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_by_importance(forgetless: Command, refused: Refused) -> None:
    base, tuned = folders()
    omega = {name: torch.rand_like(each.float()) for name, each in base.named_parameters()}
    Importance(omega, 3).save("omega.safetensors")
    words = ("repair", "base", "tuned", "--out", "o", "--method", "importance")
    done = forgetless(*words, "--importance", "omega.safetensors", "--strength", 1)
    assert done.exit_code == 0, done.stderr
    name = "model.layers.0.mlp.up_proj.weight"
    got = transformers.LlamaForCausalLM.from_pretrained("o").state_dict()[name]
    mean = sum(float(each.sum()) for each in omega.values()) / sum(each.numel() for each in omega.values())
    old, new = (each.state_dict()[name].float() for each in (base, tuned))
    assert torch.allclose(got.float(), old + (new - old) / (1 + omega[name] / mean), atol=5e-4)
    refused(
        "importance needs the importance of the base; measure it with `forgetless measure`.",
        "repair",
        "base",
        "tuned",
        "--out",
        "p",
        "--method",
        "importance",
    )


def test_bad_requests(refused: Refused) -> None:
    folders()
    refused("scale must be 0 or more, not -1.0.", "repair", "base", "tuned", "--out", "out", "--scale", -1)
    refused(
        "there is no repair called 'magic'; it may be dg-hard, wise-ft, importance, importance-dg-hard.",
        *("repair", "base", "tuned", "--out", "out", "--method", "magic"),
    )
    refused(
        "there is no nowhere; name a folder or a .safetensors file on this machine. What is on the Hub must be "
        "downloaded first.",
        *("repair", "base", "nowhere", "--out", "out"),
    )
    for method, option in (("dg-hard", "alpha"), ("wise-ft", "strength"), ("importance", "scale")):
        refused(
            f"{method} does not use --{option}; leave that out, or choose another --method.",
            *("repair", "base", "tuned", "--out", "out", "--method", method, f"--{option}", 0.7),
        )
    refused(
        "dg-hard does not use --importance; leave that out, or choose another --method.",
        *("repair", "base", "tuned", "--out", "out", "--importance", "omega.safetensors"),
    )
    refused("base exists already and is not empty; choose another --out.", "repair", "base", "tuned", "--out", "base")
