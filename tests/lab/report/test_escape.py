from __future__ import annotations

import pytest

from forgetless.lab.report import markdown
from forgetless.lab.report.escape import escaped


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<b>x</b>", r"\<b\>x\</b\>"),
        ("[x](y)", r"\[x\](y)"),
        ("`rm -r`", r"\`rm -r\`"),
        ("*x* _y_ a_b", r"\*x\* \_y\_ a_b"),
        (r"a\|b", r"a\\\|b"),
        ("http://x.y www.x.y a@b", r"http\://x.y www\.x.y a\@b"),
        ("&lt; $x$ ![i] ~~s~~ #1", r"\&lt; \$x\$ \!\[i\] \~\~s\~\~ \#1"),
        ("mas, λ = 1", "mas, λ = 1"),
        ("Linux x86_64", "Linux x86_64"),
    ],
)
def test_nothing_in_a_name_is_markup(name: str, shown: str) -> None:
    assert escaped(name) == shown


def test_tasks_methods_and_the_environment_are_escaped() -> None:
    run = {"method": "<m>|", "seed": 0, "strength": None, "accuracy": [[0.5]], "seconds": {}}
    found = {"experiment": "e", "tasks": ["[t](http://x)"], "runs": [run], "environment": {"cpu": "<script>`"}}
    text = markdown(found)
    assert r"| task | \<m\>\| |" in text
    assert r"| \[t\](http\://x) |" in text
    assert r"cpu \<script\>\`." in text
