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
