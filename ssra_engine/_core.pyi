import numpy as np
import numpy.typing as npt

__version__: str

def exact_topk(
    queries: npt.NDArray[np.float32],
    documents: npt.NDArray[np.float32],
    k: int,
    banned_offsets: npt.NDArray[np.int64],
    banned_ids: npt.NDArray[np.int64],
    threads: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]: ...
def graded_infonce(
    queries: npt.NDArray[np.float32],
    positives: npt.NDArray[np.float32],
    negatives: npt.NDArray[np.float32],
    grades: npt.NDArray[np.float32],
    dims: list[int],
    temperature: float,
    self_contrast: bool,
    false_negative_margin: float,
    products: str,
    gradients: bool,
    threads: int,
) -> tuple[float, npt.NDArray[np.float32], npt.NDArray[np.float32], float]: ...
def available_isas() -> list[str]: ...

class MiningIndex:
    def __init__(self, dim: int, metric: str) -> None: ...
    def add(
        self, vectors: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], threads: int
    ) -> None: ...
    def mine(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        banned_offsets: npt.NDArray[np.int64],
        banned_ids: npt.NDArray[np.int64],
        positive_scores: npt.NDArray[np.float32],
        absolute_margin: float | None,
        relative_margin: float | None,
        min_score: float,
        max_score: float,
        skip_top: int,
        threads: int,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]: ...
    @property
    def dim(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def bytes_held(self) -> int: ...
