from __future__ import annotations

import numpy as np
import pytest

from ssra_engine.calibration import Calibration, evening_bias, fit_temperature


def test_the_temperature_that_made_the_labels_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    grades = (probs.cumsum(1) > rng.random((len(probs), 1))).argmax(1)
    assert fit_temperature(logits * 2.5, grades) == pytest.approx(2.5, rel=0.06)


def test_the_whole_bias_makes_a_prior_even() -> None:
    grades = [0] * 6 + [1] * 3 + [2]
    prior = np.log(np.array([[0.6, 0.3, 0.1]]))
    evened = Calibration(bias=evening_bias(grades, 3, 1.0)).probs(prior)
    assert evened == pytest.approx(np.full((1, 3), 1 / 3), rel=1e-5)
    half = Calibration(bias=evening_bias(grades, 3, 0.5)).probs(prior)
    assert half[0] == pytest.approx(np.sqrt([0.6, 0.3, 0.1]) / np.sqrt([0.6, 0.3, 0.1]).sum())


def test_a_grade_without_judgments_gets_no_bias() -> None:
    assert evening_bias([0, 2, 2, 2], 4, 1.0)[1] == evening_bias([0, 2], 4, 1.0)[3] == 0


def test_probabilities_follow_temperature_and_bias() -> None:
    logits = np.array([[0.0, 2.0], [1e4, -1e4], [np.nan, 0.0]])
    probs = Calibration(temperature=2.0, bias=(0.0, 1.0)).probs(logits)
    assert probs.dtype == np.float32
    assert probs[0, 1] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert probs[1].tolist() == [1, 0]
    assert np.isnan(probs[2]).all()
