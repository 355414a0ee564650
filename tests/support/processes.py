"""Two processes that run functions of the tests together, over gloo."""

from __future__ import annotations

import importlib
import multiprocessing
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

PATIENCE = 60.0  # seconds that a test waits for an answer


class Processes:
    """Processes that wait for functions; `run` lets all of them run one and returns what each returned.

    Args:
        size: how many.
        timeout: of the process group, in seconds.
    """

    def __init__(self, size: int = 2, timeout: float = 30.0) -> None:
        self.size, self.timeout = size, timeout
        self._open()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # holds the port it found
        pipes = [context.Pipe() for _ in range(self.size)]
        self.pipes = [ours for ours, _ in pipes]
        self.processes = [
            context.Process(target=_serve, args=(rank, self.size, self._store.port, self.timeout, theirs), daemon=True)
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
        """What every process returned; raises if one did not, and the next run has new processes."""
        self.start(function, *arguments)
        try:
            answers = [self.answer(rank) for rank in range(len(self.pipes))]
        except BaseException:
            self._again()
            raise
        if any(isinstance(answer, Exception) for answer in answers):
            self._again()  # one that waits for the other in vain would fail every test after this one
        for rank, answer in enumerate(answers):
            assert not isinstance(answer, Exception), f"rank {rank}: {answer}"
        return answers

    def _again(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        """End the processes."""
        for process, pipe in zip(self.processes, self.pipes, strict=True):
            pipe.close()
            process.kill()
            process.join()


def _serve(rank: int, size: int, port: int, timeout: float, pipe: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group(
        "gloo",
        store=dist.TCPStore("localhost", port, is_master=False),
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
