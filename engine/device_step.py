"""One step of the auctions in the device's buffers: append each text's token, run the model, clear, advance.

Nothing in it waits for the host or depends on what the buffers hold, so on CUDA it is captured once for each bucket and
then replayed; elsewhere the same functions run one after the other. It must not know who is in the buffers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from tokenauction.engine.device_buffers import Bucket, Buffers, new_control
from tokenauction.engine.device_clearing import clear_padded
from tokenauction.models.base import DeviceModel

Clear = Callable[[Float32[Tensor, "rows vocab"], Buffers, Bucket], None]

_WARM_UPS = 2  # steps before a capture: kernels are compiled, libraries take their workspaces


class DeviceStep:
    """The step, for any bucket."""

    def __init__(self, model: DeviceModel, buffers: Buffers, *, capture: bool, clear: Clear | None = None) -> None:
        """With `capture`, as CUDA graphs. `clear` is, if left out, kernels where there is CUDA and torch elsewhere."""
        self.model = model
        self.buffers = buffers
        self.clear = clear or clearing_on(model.device)
        self.capture = capture
        self._graphs: dict[Bucket, torch.cuda.CUDAGraph] = {}
        # One pool for all: they never run at the same time, and what a step leaves is in the buffers, outside of it.
        self._pool = torch.cuda.graph_pool_handle() if capture else None

    def prepare(self, bucket: Bucket) -> None:
        """Capture a bucket's step if it is not yet; takes a moment, in which the device has nothing else to do."""
        if self.capture and bucket not in self._graphs:
            self._graphs[bucket] = self._captured(bucket)

    def run(self, bucket: Bucket) -> None:
        """Do one step of the bucket, which is prepared, as `buffers.control` says."""
        if self.capture:
            self._graphs[bucket].replay()
        else:
            self._step(bucket)

    def _step(self, bucket: Bucket) -> None:
        buffers, control, num_rows = self.buffers, self.buffers.control, bucket.rows
        lengths, pages = buffers.lengths[:num_rows], buffers.pages[:num_rows]
        page = control["page"][:num_rows].to(pages.dtype)
        pages.scatter_(1, (lengths // self.model.page_size)[:, None], page[:, None])
        ids = buffers.tokens[control["auction"][:num_rows].long()]
        logits = self.model.decode(ids, lengths, pages)
        lengths += control["live"][:num_rows].long()
        self.clear(logits, buffers, bucket)

    def _captured(self, bucket: Bucket) -> torch.cuda.CUDAGraph:
        """Warm up with rows of nobody, whose writes go to the spare page; then capture, which runs nothing."""
        buffers = self.buffers
        kept = [tensor.clone() for tensor in buffers.state]
        buffers.control.flat.copy_(torch.from_numpy(self._nobody()))
        buffers.lengths.zero_()
        buffers.pages.fill_(buffers.spare_page)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._step(bucket)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._step(bucket)
        for tensor, before in zip(buffers.state, kept, strict=True):
            tensor.copy_(before)
        return graph

    def _nobody(self) -> np.ndarray:
        control = new_control(self.buffers.most)
        control["page"][:] = self.buffers.spare_page
        flat: np.ndarray = control.flat
        return flat


def clearing_on(device: torch.device) -> Clear:
    """Triton's kernels where there is CUDA, else torch."""
    if device.type != "cuda":
        return clear_padded
    from tokenauction.engine.auction_kernels import clear_rows

    return clear_rows
