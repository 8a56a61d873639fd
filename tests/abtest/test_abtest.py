"""A/B tests from logs: intervals that cover, logs that add up, mistakes that are told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest

from ssra_engine.abtest.compare import compare_logs
from ssra_engine.abtest.logs import read_users
from ssra_engine.abtest.ratios import Effect, compare_ratios, mismatch_p, moments
from ssra_engine.cli import main
from ssra_engine.errors import ConfigError, DataError

# Kinds of users: how often they come, how often they click, and how many there are of each.
_SEARCHES = np.array([1.0, 4.0, 30.0])
_RATES = np.array([0.30, 0.22, 0.08])
_SHARES = np.array([0.6, 0.3, 0.1])
_EFFECT = 1.06


def _arms(simulations: int, users: int, effect: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clicks and impressions, [simulations, users]; who searches more clicks less."""
    generator = np.random.default_rng(seed)
    kind = generator.choice(3, (simulations, users), p=_SHARES)
    impressions = 1 + generator.poisson(_SEARCHES[kind])
    rates = _RATES[kind] * effect
    own = generator.beta(8 * rates, 8 * (1 - rates))  # users of a kind differ
    return generator.binomial(impressions, own).astype(float), impressions.astype(float)


def _true_ratio(effect: float) -> float:
    seen = 1 + _SEARCHES
    return float(effect * (_SHARES * seen * _RATES).sum() / (_SHARES * seen).sum())


@pytest.fixture(scope="module")
def experiments() -> Effect:
    """1,000 experiments of 2 x 800 users with a known effect on the CTR."""
    control = moments(*_arms(1000, 800, 1.0, 0))
    treatment = moments(*_arms(1000, 800, _EFFECT, 1))
    return compare_ratios(control, treatment)


def test_intervals_hold_the_true_effect_95_times_in_100(experiments: Effect) -> None:
    truth = _true_ratio(_EFFECT) - _true_ratio(1.0)
    covered = ((experiments.low <= truth) & (truth <= experiments.high)).mean()
    assert 0.93 <= covered <= 0.97
    lift = _EFFECT - 1
    covered = ((experiments.lift_low <= lift) & (lift <= experiments.lift_high)).mean()
    assert 0.93 <= covered <= 0.97


def test_impressions_taken_as_independent_would_not_hold_it(experiments: Effect) -> None:
    """What the delta method is for: the binomial interval is far too short here."""
    truth = _true_ratio(_EFFECT) - _true_ratio(1.0)
    _, impressions = _arms(1000, 800, 1.0, 0)
    rates = (experiments.control, experiments.treatment)
    error = np.sqrt(sum(rate * (1 - rate) / impressions.sum(1) for rate in rates))
    assert (np.abs(experiments.difference - truth) <= 1.96 * error).mean() < 0.9


def test_no_effect_is_found_5_times_in_100_and_the_smallest_effect_80_times() -> None:
    control = moments(*_arms(1000, 800, 1.0, 2))
    nothing = compare_ratios(control, moments(*_arms(1000, 800, 1.0, 3)))
    assert 0.03 <= (nothing.p < 0.05).mean() <= 0.07
    # Shifted so that only the ratio changes, not how it scatters.
    clicks, impressions = _arms(1000, 800, 1.0, 4)
    shifted = clicks + np.median(nothing.smallest) * impressions
    there = compare_ratios(control, moments(shifted, impressions))
    assert 0.76 <= (there.p < 0.05).mean() <= 0.84


def test_penetration_has_the_variance_of_a_share() -> None:
    used = np.array([1.0, 0, 0, 1, 0, 0, 0, 0, 1, 0])
    effect = compare_ratios(*[moments(used, np.ones(10))] * 2)
    assert effect.control == pytest.approx(0.3)
    assert effect.control_error == pytest.approx(np.std(used, ddof=1) / np.sqrt(10))
    assert effect.p == pytest.approx(1)


def test_mismatch_is_the_chi_square_test() -> None:
    assert mismatch_p((5000, 5000)) == pytest.approx(1)
    assert mismatch_p((800, 200), 0.2) == pytest.approx(1)
    assert mismatch_p((5300, 5000)) == pytest.approx(binomtest(5000, 10300, 0.5).pvalue, rel=0.05)
    assert mismatch_p((5300, 4700)) < 1e-8


def _log(path: Path, rows: list[dict[str, Any]], types: dict[str, pa.DataType]) -> Path:
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(types.items())))
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


_TYPES = {
    "user_id": pa.string(),
    "clicked": pa.bool_(),
    "relevance": pa.int8(),
    "used": pa.int8(),
}


def test_rows_add_up_to_users(tmp_path: Path) -> None:
    rows = [
        {"user_id": "小猫", "clicked": True, "relevance": 3, "used": 0},
        {"user_id": "b", "clicked": False, "relevance": None, "used": 1},
        {"user_id": "小猫", "clicked": False, "relevance": 2, "used": 0},
        {"user_id": "c", "clicked": None, "relevance": 3, "used": None},
    ]
    read = read_users([_log(tmp_path / "a.arrow", rows, _TYPES)], strong=3)
    assert read.to_pylist() == [
        {"user_id": u, "impressions": i, "clicks": c, "judged": j, "strong": s, "used": used}
        for u, i, c, j, s, used in [
            ("小猫", 2, 1, 2, 1, 0),
            ("b", 1, 0, 0, 0, 1),
            ("c", 0, 0, 0, 0, 0),
        ]
    ]
    numbers = {"user_id": pa.int64(), "clicked": pa.int64()}
    plain = [{"user_id": 7, "clicked": 1}, {"user_id": 7, "clicked": 0}]
    read = read_users([_log(tmp_path / "b.parquet", plain, numbers)], strong=3)
    assert read.to_pylist()[0] == {
        "user_id": "7", "impressions": 2, "clicks": 1, "judged": 0, "strong": 0, "used": 1
    }  # fmt: skip


def _simulated_logs(folder: Path) -> tuple[Path, Path, np.ndarray]:
    """One experiment as files, the same that `_arms` gives as arrays."""
    sums = [_arms(1, 300, effect, seed) for effect, seed in ((1.0, 5), (_EFFECT, 6))]
    paths = []
    for name, (clicks, impressions) in zip("ab", sums, strict=True):
        rows = [
            {"user_id": f"{name}{user}", "clicked": place < clicks[0, user], "relevance": place % 4}
            for user in range(300)
            for place in range(int(impressions[0, user]))
        ]
        rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
        types = {key: kind for key, kind in _TYPES.items() if key != "used"}
        paths.append(_log(folder / f"{name}.parquet", rows, types))
    return paths[0], paths[1], np.array(sums)


def test_logs_give_the_figures_of_their_sums(tmp_path: Path) -> None:
    control, treatment, sums = _simulated_logs(tmp_path)
    report = compare_logs([control], [treatment])
    effect = compare_ratios(*(moments(*arm) for arm in sums[:, :, 0]))
    told = report["metrics"]["ctr"]
    assert told == pytest.approx({key: float(value) for key, value in vars(effect).items()})
    used = (sums[:, 0, 0] > 0).mean(1)
    assert report["metrics"]["user_penetration_rate"]["control"] == pytest.approx(used[0])
    places = sums[0, 1, 0].astype(int)
    strong = (places // 4).sum() / places.sum()
    assert report["metrics"]["strong_relevance_ratio"]["control"] == pytest.approx(strong)
    assert not report["mismatch"]["found"]


def test_the_command_tells_a_mismatch_and_prints_json(tmp_path: Path) -> None:
    control, treatment, _ = _simulated_logs(tmp_path)
    arguments = ["abtest", "--control", str(control), "--treatment", str(treatment)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "sample ratio as planned" in done.stdout
    assert re.search(r"user penetration +│ +\d+\.\d{3} │ ", done.stdout)
    skewed = CliRunner().invoke(main, [*arguments, "--share", "0.8"])
    assert "SAMPLE-RATIO MISMATCH" in skewed.stdout
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert told == compare_logs([control], [treatment])


def test_mistakes_are_told_with_their_place(tmp_path: Path) -> None:
    good = [{"user_id": name, "clicked": True} for name in "abc"]
    others = [{"user_id": name, "clicked": True} for name in "xyz"]
    types = {"user_id": pa.string(), "clicked": pa.bool_()}
    a, b = (_log(tmp_path / f"{n}.arrow", rows, types) for n, rows in (("a", good), ("b", others)))
    report = compare_logs([a], [b])
    assert report["metrics"]["strong_relevance_ratio"] is None
    assert report["metrics"]["ctr"]["p"] is None
    with pytest.raises(ConfigError, match="share"):
        compare_logs([a], [b], share=1.5)
    with pytest.raises(DataError, match="3 users are in both arms"):
        compare_logs([a], [a])
    one = _log(tmp_path / "one.arrow", good[:1], types)
    with pytest.raises(DataError, match="has 1 users"):
        compare_logs([a], [one])
    cases = {
        "row 2": (
            [{"user_id": name, "clicked": number} for number, name in enumerate("abc")],
            {"user_id": pa.string(), "clicked": pa.int8()},
        ),
        "row 1": ([good[0], {"user_id": None, "clicked": True}], types),
        "column 'clicked': the column is missing": ([{"user_id": "a"}], {"user_id": pa.string()}),
        "holds double": (
            [{"user_id": "a", "clicked": 0.5}],
            {"user_id": pa.string(), "clicked": pa.float64()},
        ),
    }
    for number, (message, (rows, kinds)) in enumerate(cases.items()):
        bad = _log(tmp_path / f"bad{number}.arrow", rows, kinds)
        with pytest.raises(DataError, match=message):
            compare_logs([a], [bad])
    (tmp_path / "log.csv").write_text("user_id,clicked\na,1\n")
    with pytest.raises(DataError, match="Arrow or Parquet"):
        compare_logs([a], [tmp_path / "log.csv"])
