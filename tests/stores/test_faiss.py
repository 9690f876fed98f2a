"""FAISS indexes, written by FAISS."""

import faiss
import numpy as np
import pytest

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.vectors import open_vectors

from .sources import DIM, ROWS, VECTORS, fingerprint, read_all

# each id is a row of `VECTORS`, in another order
SHUFFLED = np.random.default_rng(1).permutation(ROWS)


def write(path, factory, ids=None, vectors=VECTORS):
    """An index that `faiss.index_factory` makes of its name."""
    index = faiss.index_factory(DIM, factory)
    index.verbose = False
    index.train(vectors)
    if ids is None:
        index.add(vectors)
    else:
        index.add_with_ids(vectors[ids], ids)
    faiss.write_index(index, str(path))
    return path


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF4,Flat", "IVF4,PQ4x4np,RFlat", "IVF4_HNSW8,Flat"])
def test_exact_indexes_give_every_vector_back(tmp_path, factory):
    """The lists of an IVF index hold the vectors in another order than their ids."""
    path = write(tmp_path / "v.index", factory)
    before = fingerprint(tmp_path)
    found = read_all(path)  # recognised by its suffix
    assert np.array_equal(found.vectors, VECTORS) and found.ids == list(map(str, range(ROWS)))
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("factory", ["IDMap,Flat", "IDMap2,HNSW16", "IVF4,Flat", "IDMap2,IVF4,Flat"])
def test_ids_stay_with_their_vectors(tmp_path, factory):
    """An index with ids of its own, whose vectors would be taken for those of the rows 0, 1, ..."""
    path = write(tmp_path / "v.faiss", factory, SHUFFLED)
    found = read_all(f"faiss:{path}")
    assert np.array_equal(found.vectors, VECTORS[np.array(found.ids, np.int64)])
    assert sorted(found.ids, key=int) == list(map(str, range(ROWS)))


@pytest.mark.parametrize(
    "factory, most",
    [("SQ8", 0.01), ("HNSW16_SQ8", 0.01), ("IVF4,SQ8", 0.01), ("SQfp16", 1e-3), ("OPQ4_16,Flat", 1e-5),
     ("PQ8x4np", 0.8), ("IVF4,PQ8x4np", 0.8), ("OPQ4_16,IVF4,PQ4x4np", 0.8)],
)  # fmt: skip
def test_quantised_indexes_give_near_vectors_back(tmp_path, factory, most):
    """A quantiser's codes, taken for the rows of another index, point anywhere."""
    found = read_all(write(tmp_path / "v.faiss", factory))
    assert np.linalg.norm(found.vectors - VECTORS, axis=1).mean() < most
    assert found.ids == list(map(str, range(ROWS)))


@pytest.mark.parametrize("factory", [f"PCAW{DIM},Flat", f"PCAWR{DIM},IVF4,Flat", f"PCAR{DIM},Flat"])
def test_whitening_is_undone(tmp_path, factory):
    """FAISS undoes a whitening PCA by its transpose, which is no inverse: vectors that point elsewhere."""
    scaled = VECTORS * np.linspace(0.1, 3, DIM, dtype=np.float32) + 1
    found = read_all(write(tmp_path / "v.faiss", factory, vectors=scaled))
    assert np.allclose(found.vectors, scaled, atol=1e-4)


def test_a_whitening_that_keeps_some_numbers_gives_the_nearest_vectors(tmp_path):
    """Of a PCA to fewer numbers, whitened or not, the same part of each vector is left."""
    plain, whitened = (read_all(write(tmp_path / "v.faiss", f"{kind}8,Flat")) for kind in ("PCA", "PCAW"))
    assert np.allclose(whitened.vectors, plain.vectors, atol=1e-4)


def test_mistakes_are_one_line(tmp_path):
    """An index that keeps no vectors ended the process; a damaged one raised with three lines of C++."""
    path = write(tmp_path / "v.faiss", "Flat")
    for name, content in {
        "cut.faiss": path.read_bytes()[:500],
        "noise.index": b"noise" * 99,
        "none.faiss": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(EmbInvError) as error:
            open_vectors(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: cannot be read: ") and str(error.value).isprintable()
    faiss.write_index(faiss.IndexLSH(DIM, 32), str(tmp_path / "empty.faiss"))
    with pytest.raises(EmbInvError, match="holds no vectors"):
        read_all(tmp_path / "empty.faiss")
    hashes = faiss.IndexIVFSpectralHash(faiss.IndexFlatL2(DIM), DIM, 4, 8, 1.0)
    hashes.train(VECTORS)
    hashes.add(VECTORS)
    faiss.write_index(hashes, str(tmp_path / "hashes.faiss"))
    with pytest.raises(EmbInvError, match="a FAISS index of kind IndexIVFSpectralHash gives no vectors back"):
        read_all(tmp_path / "hashes.faiss")
    binary = faiss.IndexBinaryFlat(64)
    binary.add(np.zeros((3, 8), np.uint8))
    faiss.write_index_binary(binary, str(tmp_path / "binary.faiss"))
    with pytest.raises(EmbInvError, match="binary.faiss"):
        open_vectors(tmp_path / "binary.faiss")


@pytest.mark.parametrize("factory", ["IVF4,PQ8x4fs", "IDMap2,IVF4,PQ8x4fs", "OPQ4_16,IVF4,PQ4x4fs"])
def test_lists_of_fast_scan_are_refused(tmp_path, factory):
    """FAISS ends the process where it is asked for a vector of an IVF index of fast scan."""
    with pytest.raises(EmbInvError, match="a FAISS index of kind .* gives no vectors back"):
        open_vectors(write(tmp_path / "v.faiss", factory, SHUFFLED if "IDMap" in factory else None))


@pytest.mark.parametrize("factory", ["IVF4,PQ8x4fs,RFlat", "PQ8x4fs"])
def test_fast_scan_that_gives_vectors_back(tmp_path, factory):
    """Refusing all of fast scan would refuse indexes that are read well."""
    found = read_all(write(tmp_path / "v.faiss", factory))
    assert np.linalg.norm(found.vectors - VECTORS, axis=1).mean() < 0.8
