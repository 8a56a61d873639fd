WEIGH_ROWS: int
device_type: str

class Launch:
    def __init__(self, *, threads: int, device: int, stream: int) -> None: ...
    @property
    def threads(self) -> int: ...

class Anchors:
    def __init__(
        self,
        *,
        count: int,
        positives: int,
        ceilings: int,
        largest: int,
        others: int,
        shares: int,
        pulls: int,
    ) -> None: ...

class ContrastTile:
    def __init__(
        self,
        *,
        products: int,
        level_stride: int,
        row_stride: int,
        rows: int,
        columns: int,
        first_row: int,
        first_column: int,
        levels: int,
        row_scales: int,
        row_scales_stride: int,
        column_scales: int,
        column_scales_stride: int,
        temperature: int,
        symmetric: bool,
        anchors: Anchors,
    ) -> None: ...

def select(
    launch: Launch,
    *,
    scores: int,
    row_stride: int,
    queries: int,
    columns: int,
    column_scales: int,
    ids: int,
    first_id: int,
    banned_offsets: int,
    banned_ids: int,
    positives: int,
    absolute_margin: float,
    relative_margin: float,
    min_score: float,
    max_score: float,
    kept: int,
    best_scores: int,
    best_ids: int,
    counts: int,
) -> None: ...
def add_row_sums(launch: Launch, tile: ContrastTile) -> None: ...
def add_column_sums(launch: Launch, tile: ContrastTile) -> None: ...
def finish_sums(
    launch: Launch,
    anchors: Anchors,
    *,
    levels: int,
    first: int,
    end: int,
    grades: int,
    temperature: int,
    losses: int,
) -> None: ...
def weigh(launch: Launch, tile: ContrastTile, *, row_dots: int, column_dots: int) -> None: ...
