"""The RQ-VAE's loss against a literal transcription, its gradients, its training and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conrec.artefacts import write_tensors
from conrec.config import RqVaeConfig
from conrec.errors import ArtefactError, ConfigError, DataError
from conrec.items.diagnosis.diagnostics import perplexity, unit_rows
from conrec.items.quantisers.assignment import best_path
from conrec.items.quantisers.codebooks import MovingCodebook
from conrec.items.quantisers.noise import LARGEST_NOISE, noise_for, overfit
from conrec.items.quantisers.quantiser import load_quantiser, train_quantiser
from conrec.items.quantisers.rqvae import RqVae, quantised, rqvae_loss
from conrec.items.quantisers.sizes import codebook_size_for, larger_codebook, resolve_codebook_size
from conrec.seeds import derive

SMALL = RqVaeConfig(codebook_size=8, hidden_dims=(16,), latent_dim=8, epochs=12, batch_size=32, noise=0.1, beam=3)


def rows(n: int, d: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.fixture
def model() -> RqVae:
    """A model with all of its weights drawn, the last layers and the linear maps too."""
    generator = torch.Generator().manual_seed(0)
    model = RqVae(12, SMALL, generator)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator) * 0.2)
    model.codebooks.copy_(torch.randn(3, 8, 8, generator=generator) * 0.3)
    return model


def test_loss_is_the_papers_formula(model: RqVae) -> None:
    x = torch.from_numpy(rows(5))
    latents = model.to_latent(x)
    rebuilt, chosen = model(latents, best_path(latents.detach(), model.codebooks, 1))
    reconstruction, commitment = rqvae_loss(x, rebuilt, chosen)
    total, committed = 0.0, 0.0
    for row in x:
        latent = (model.encoder(row) + model.into(row)).detach()
        codewords: list[torch.Tensor] = []
        for codebook in model.codebooks:
            residual = latent - sum(codewords, torch.zeros(8))
            codewords.append(min(codebook, key=lambda codeword, r=residual: float(((r - codeword) ** 2).sum())))
            committed += float(((residual - codewords[-1]) ** 2).sum())
        added = sum(codewords, torch.zeros(8))
        total += float(((row - (model.decoder(added) + model.out(added)).detach()) ** 2).sum())
    assert float(reconstruction.detach()) == pytest.approx(total / 5, rel=1e-5)
    assert float(commitment.detach()) == pytest.approx(committed / 5, rel=1e-5)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_commitment_of_every_level_reaches_the_encoder(model: RqVae, level: int) -> None:
    latents = model.to_latent(torch.from_numpy(rows(5)))
    latents.retain_grad()
    chosen = quantised(latents, best_path(latents.detach(), model.codebooks, 3), model.codebooks)
    (chosen.residuals[level] - chosen.codewords[level]).square().sum(1).mean().backward()
    # d/dz of |R(d) - sg Z(d)|² with R(d) = z - const is 2 (R(d) - Z(d)); zero would mean a cut.
    wanted = 2 * (chosen.residuals[level] - chosen.codewords[level]).detach() / 5
    assert torch.allclose(latents.grad, wanted, atol=1e-6)
    assert wanted.abs().max() > 1e-3
    assert model.encoder[0].weight.grad.abs().max() > 0


def test_reconstruction_passes_straight_through_to_the_encoder(model: RqVae) -> None:
    x = torch.from_numpy(rows(5))
    latents = model.to_latent(x)
    codes = best_path(latents.detach(), model.codebooks, 3)
    total = quantised(latents, codes, model.codebooks).codewords.sum(0).detach().requires_grad_()
    (x - model.from_latent(total)).square().sum(1).mean().backward()
    latents.backward(total.grad)
    wanted = model.encoder[0].weight.grad.clone()
    model.zero_grad()
    rebuilt, chosen = model(model.to_latent(x), codes)
    rqvae_loss(x, rebuilt, chosen)[0].backward()
    assert torch.allclose(model.encoder[0].weight.grad, wanted, atol=1e-5)
    assert wanted.abs().max() > 0
    assert not model.codebooks.requires_grad


def test_training_starts_from_residual_kmeans_of_the_principal_components() -> None:
    embeddings = rows(300)
    untrained = SMALL.model_copy(update={"latent_dim": 12, "learning_rate": 1e-12, "decay": 0.999999, "epochs": 1})
    plain = SMALL.model_copy(update={"method": "residual_kmeans"})
    errors = [
        float(np.square(embeddings - embeddings.mean(0) - model.rebuild(model.encode(embeddings))).sum())
        for model in (train_quantiser(embeddings, config, 0) for config in (untrained, plain))
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)  # the same but for the draws of the k-means
    trained = train_quantiser(embeddings, SMALL.model_copy(update={"latent_dim": 12, "epochs": 60}), 0)
    gained = float(np.square(embeddings - embeddings.mean(0) - trained.rebuild(trained.encode(embeddings))).sum())
    assert gained < 0.97 * min(errors)


def test_training_stops_when_held_out_rows_gain_nothing_and_keeps_the_best_state() -> None:
    config = SMALL.model_copy(
        update={"validation_share": 0.2, "patience": 3, "epochs": 100, "learning_rate": 2e-2, "noise": 0.0}
    )
    model = train_quantiser(rows(120), config, 0)
    curve = dict(model.curve["validation"])
    assert list(curve) == list(range(1, max(curve) + 1))  # every epoch is there
    assert max(curve) < 100
    assert not model.training
    # The state that is kept is that of the lowest error, `patience` epochs before the last one.
    order = torch.randperm(120, generator=_after_weights(config))
    held = rows(120)[order[:24].numpy()]
    centred = held - rows(120).mean(0)
    error = np.square(centred - model.rebuild(model.encode(held))).sum() / 24 / float(model.scale) ** 2
    assert error == pytest.approx(min(curve.values()), rel=1e-4)
    assert min(curve, key=curve.__getitem__) == max(curve) - 3


def _after_weights(config: RqVaeConfig) -> torch.Generator:
    """The generator as training has it once the weights are drawn."""
    generator = torch.Generator().manual_seed(derive(0, "rqvae"))
    RqVae(12, config, generator)
    return generator


def test_noise_follows_how_much_codebooks_overfit() -> None:
    """Three groups of equal rows are coded as well when they were not seen; rows without any group are not."""
    draw = torch.Generator().manual_seed(0)
    groups = torch.randn(3, 12, generator=draw).repeat(100, 1)
    alone = torch.randn(300, 12, generator=draw)
    assert overfit(groups, SMALL, draw) == pytest.approx(0, abs=1e-6)
    assert 0.05 < overfit(alone, SMALL, draw) < 0.5
    assert overfit(alone[:8], SMALL, draw) == float("inf")
    assert noise_for(alone[:8], SMALL, draw) == LARGEST_NOISE
    free = SMALL.model_copy(update={"noise": None, "epochs": 1})
    assert train_quantiser(groups.numpy(), free, 0).config.noise == pytest.approx(0, abs=1e-5)
    assert train_quantiser(alone.numpy(), free, 0).config.noise > 0.5


def test_a_training_that_diverges_is_an_error() -> None:
    with pytest.raises(DataError, match=r"diverged.*rqvae.learning_rate"):
        train_quantiser(rows(100), SMALL.model_copy(update={"learning_rate": 1e6}), 0)


def test_codebooks_far_larger_than_the_batch_train_as_well_as_with_large_batches() -> None:
    """With the decay by batch, and not by rows, codewords followed the last row or two, and idle ones fell to zero."""
    draw = np.random.default_rng(0)
    embeddings = (draw.normal(size=(64, 8)).repeat(20, 0) + 0.2 * draw.normal(size=(1280, 8))).astype(np.float32)
    config = SMALL.model_copy(update={"codebook_size": 256, "epochs": 15, "noise": 0.0, "learning_rate": 1e-9})
    errors = {}
    for batch in (16, 512):
        model = train_quantiser(embeddings, config.model_copy(update={"batch_size": batch}), 0)
        errors[batch] = np.square(embeddings - embeddings.mean(0) - model.rebuild(model.encode(embeddings))).sum()
        assert model.codebooks[0].norm(dim=1).min() > 0.05
    assert errors[16] < 1.15 * errors[512]


def test_balanced_training_uses_the_last_codes_more_alike() -> None:
    draw = np.random.default_rng(3)
    embeddings = np.concatenate([draw.normal(size=(300, 12)) * 0.05, draw.normal(size=(60, 12)) * 2]).astype(np.float32)
    found = {}
    for balance in ("none", "last"):
        model = train_quantiser(embeddings, SMALL.model_copy(update={"balance": balance, "beam": 1}), 0)
        found[balance] = perplexity(np.bincount(model.encode(embeddings)[:, 2], minlength=8))
    assert found["last"] > found["none"]


def test_training_rebuilds_better_than_chance_and_uses_its_codes() -> None:
    draw = np.random.default_rng(0)
    embeddings = (draw.normal(size=(400, 4)) @ draw.normal(size=(4, 12)) + 3).astype(np.float32)
    model = train_quantiser(embeddings, SMALL.model_copy(update={"epochs": 40, "learning_rate": 5e-3}), seed=1)
    codes = model.encode(embeddings)
    assert codes.dtype == np.int32
    assert codes.shape == (400, 3)
    centred = embeddings - embeddings.mean(0)
    cosine = (unit_rows(centred) * unit_rows(model.rebuild(codes))).sum(1)
    assert cosine.mean() > 0.85
    assert all(len(np.unique(codes[:, level])) == 8 for level in range(3))
    assert np.allclose(model.mean.numpy(), embeddings.mean(0), atol=1e-5)
    # In the units of the embeddings too, not only in direction.
    assert np.square(model.rebuild(codes) - centred).sum() < 0.2 * np.square(centred).sum()
    assert set(model.curve) == {
        "reconstruction", "commitment", "perplexity_1", "perplexity_2", "perplexity_3", "dead_codes_restarted",
    }  # fmt: skip
    curve = model.curve["reconstruction"]
    assert (curve[0][0], curve[-1][0]) == (1, 40)
    assert curve[-1][1] < curve[0][1]


def test_dead_codes_are_restarted_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    start = MovingCodebook.start.__func__

    def far_away(cls: type[MovingCodebook], codewords: torch.Tensor, count: torch.Tensor) -> MovingCodebook:
        codewords[1:] = 1e3  # all but one code of each level where no residual ever comes
        return start(cls, codewords, count)

    monkeypatch.setattr(MovingCodebook, "start", classmethod(far_away))
    config = SMALL.model_copy(update={"epochs": 30, "dead_after": 2})
    model = train_quantiser(rows(200), config, seed=0)
    codes = model.encode(rows(200))
    assert model.curve["dead_codes_restarted"][-1][1] >= 3 * 7
    assert all(len(np.unique(codes[:, level])) >= 6 for level in range(3))
    never = train_quantiser(rows(200), config.model_copy(update={"dead_after": 1000}), seed=0)
    assert never.curve["dead_codes_restarted"][-1][1] == 0
    assert all(len(np.unique(never.encode(rows(200))[:, level])) == 1 for level in range(3))


def test_same_seed_same_bytes_and_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        model = train_quantiser(rows(100), SMALL, seed)
        model.save(tmp_path / name)
        torch.rand(1, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    train_quantiser(rows(100), SMALL, 3).save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()


def test_the_number_of_threads_changes_nothing_and_is_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            train_quantiser(rows(100), SMALL, 0).save(tmp_path / str(threads))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = train_quantiser(rows(100), SMALL, 0)
    model.save(tmp_path / "rqvae.safetensors")
    again = load_quantiser(tmp_path / "rqvae.safetensors")
    codes = model.encode(rows(100))
    assert np.array_equal(again.encode(rows(100)), codes)
    assert np.array_equal(again.rebuild(codes), model.rebuild(codes))
    assert again.config == model.config
    write_tensors(tmp_path / "other.safetensors", {"mean": np.zeros(3, dtype=np.float32)})
    with pytest.raises(ArtefactError, match="does not hold a quantiser"):
        load_quantiser(tmp_path / "other.safetensors")


@pytest.mark.parametrize(("n", "size"), [(1, 16), (256, 16), (257, 32), (1682, 64), (12_611, 128), (10**9, 8192)])
def test_codebook_size_follows_the_catalogue(n: int, size: int) -> None:
    assert codebook_size_for(n) == size


def test_codebook_size_is_lowered_to_what_the_rows_can_start() -> None:
    free = RqVaeConfig(codebook_size=None)
    assert resolve_codebook_size(free, 1573) == 64
    assert resolve_codebook_size(free, 20) == 16
    assert resolve_codebook_size(free, 15) == 8
    assert resolve_codebook_size(free, 1) == 1
    with pytest.raises(ConfigError, match=r"rqvae.codebook_size: 64 codes a level for 63 items.*at most 63"):
        resolve_codebook_size(RqVaeConfig(codebook_size=64), 63)
    with pytest.raises(ConfigError, match="8 codes a level for 7 items"):
        train_quantiser(rows(7), SMALL, 0)


def test_a_codebook_grows_by_doubling_as_far_as_the_rows_can_start_it() -> None:
    assert larger_codebook(16, 32) == 32
    assert larger_codebook(16, 31) is None
    assert larger_codebook(4096, 10**6) == 8192
    assert larger_codebook(8192, 10**6) is None


def test_broken_embeddings_are_refused() -> None:
    broken = rows(20)
    broken[7, 3] = np.nan
    broken[9, 0] = np.inf
    with pytest.raises(DataError, match=r"row 7 is not finite \(2 such rows\)"):
        train_quantiser(broken, SMALL, 0)
    with pytest.raises(DataError, match="at least one row"):
        train_quantiser(rows(0), SMALL, 0)


def test_one_row_and_identical_rows() -> None:
    free = SMALL.model_copy(update={"codebook_size": None, "epochs": 2})
    assert train_quantiser(rows(1), free, 0).encode(rows(1)).tolist() == [[0, 0, 0]]
    same = np.ones((40, 12), dtype=np.float32)
    model = train_quantiser(same, SMALL, 0)
    codes = model.encode(same)
    assert len(np.unique(codes, axis=0)) == 1
    assert np.isfinite(model.rebuild(codes)).all()


def test_no_rows_to_encode_are_fine(model: RqVae) -> None:
    assert model.encode(rows(0)).shape == (0, 3)
    assert model.rebuild(np.empty((0, 3), dtype=np.int32)).shape == (0, 12)
