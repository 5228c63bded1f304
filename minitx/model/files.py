"""Reading the weights in a file, whatever their kind."""

from dataclasses import MISSING, fields
from pathlib import Path

from minitx.model.circuits import Circuits
from minitx.model.layers import LayeredWeights
from minitx.model.parameters import KIND, Parameters, read_arrays
from minitx.model.weights import EmbeddedWeights, LastTokenWeights, OneHotWeights

# A file that does not name its kind is the first of these whose arrays it has.
KINDS = (OneHotWeights, LayeredWeights, EmbeddedWeights, LastTokenWeights, Circuits)


def load(path: str | Path) -> Parameters | dict[str, LastTokenWeights]:
    """Read the weights in a file, of whatever kind they are.

    Parameters
    ----------
    path : str or Path
        A file that ``save`` or a command of minitx has written (.npz). Its entry ``kind of weights`` names the kind; a
        file without one is recognised by the names of its arrays.

    Returns
    -------
    OneHotWeights, LayeredWeights, EmbeddedWeights, LastTokenWeights or Circuits
        Or, of the weights.npz of ``minitx automaton``, a dict: the trained LastTokenWeights by mode, and the predicted
        ones as ``svm`` (W_svm) and ``fin`` (W_fin).

    Raises
    ------
    TypeError, FileNotFoundError, ValueError
        There is no such file, or it holds no weights of these kinds.
    """
    found = read_arrays(path)
    known = {kind.__name__: kind for kind in KINDS}
    if KIND in found:
        name = str(found.pop(KIND))
        if name not in known:
            raise ValueError(f"{path} holds {name}, a parametrisation that is not one of minitx; load it with "
                             f"{name}.load({str(path)!r})")
        return known[name].load(path)
    for kind in KINDS:
        names = {field.name for field in fields(kind)}
        needed = {field.name for field in fields(kind) if field.default is MISSING} if kind is not Circuits else {"ov"}
        if needed <= set(found) <= names and found:
            return kind.load(path)
    E = found.pop("E", None)
    if {"W_svm", "W_fin"} <= set(found) and all(name.startswith("W_") for name in found):
        return {name.removeprefix("W_"): LastTokenWeights(W, E) for name, W in found.items()}
    raise ValueError(f"{path} holds the arrays {', '.join(found) or '(none)'}, which are no weights of "
                     f"{', '.join(known)}; a file that minitx has written is needed")
