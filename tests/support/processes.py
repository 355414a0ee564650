"""Two processes that run functions of the tests together, over gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

PATIENCE = 60.0  # seconds that a test waits for an answer


class Processes:
    """Processes that wait for functions; `run` lets all of them run one and returns what each returned.

    Args:
        size: how many.
        timeout: of the process group, in seconds.
    """

    def __init__(self, size: int = 2, timeout: float = 30.0) -> None:
        context = multiprocessing.get_context("spawn")
        with socket.socket() as found:
            found.bind(("localhost", 0))
            port = found.getsockname()[1]
        pipes = [context.Pipe() for _ in range(size)]
        self.pipes = [ours for ours, _ in pipes]
        self.processes = [
            context.Process(target=_serve, args=(rank, size, port, timeout, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process, (_, theirs) in zip(self.processes, pipes, strict=True):
            process.start()
            theirs.close()

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Let every process run `function(rank, *arguments)`, which an import finds by its name."""
        for pipe in self.pipes:
            pipe.send((function.__module__, function.__qualname__, arguments))

    def answer(self, rank: int, patience: float = PATIENCE) -> Any:
        """What one process returned, or the text of what it raised, as an `Exception`."""
        assert self.pipes[rank].poll(patience), f"rank {rank} does not answer"
        return self.pipes[rank].recv()

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What every process returned; raises if one did not."""
        self.start(function, *arguments)
        answers = [self.answer(rank) for rank in range(len(self.pipes))]
        for rank, answer in enumerate(answers):
            assert not isinstance(answer, Exception), f"rank {rank}: {answer}"
        return answers

    def close(self) -> None:
        """End the processes."""
        for process, pipe in zip(self.processes, self.pipes, strict=True):
            pipe.close()
            process.kill()
            process.join()


def _serve(rank: int, size: int, port: int, timeout: float, pipe: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import importlib

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://localhost:{port}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=timeout),
    )
    while True:
        try:
            module, name, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = getattr(importlib.import_module(module), name)(rank, *arguments)
        except Exception as error:
            traceback.print_exc()
            answer = Exception(f"{type(error).__name__}: {error}")
        pipe.send(answer)
