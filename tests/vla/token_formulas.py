"""The published formulas of token selectors and mergers, restated in NumPy one step at a time."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def cosine_transform(side: int) -> Array:
    """Orthonormal DCT-II, rows are frequencies."""
    places = np.arange(side)
    rows = [np.cos(np.pi * (2 * places + 1) * u / (2 * side)) * np.sqrt((2 if u else 1) / side) for u in range(side)]
    return np.stack(rows)


def fourier(tokens: Array, grid: tuple[int, int], small: tuple[int, int], gain: bool) -> Array:
    """Transform, crop, inverse at the smaller size, channel by channel."""
    (rows, columns), (fewer_rows, fewer_columns) = grid, small
    made = np.empty((fewer_rows * fewer_columns, tokens.shape[1]))
    for channel in range(tokens.shape[1]):
        image = tokens[:, channel].reshape(rows, columns)
        spectrum = cosine_transform(rows) @ image @ cosine_transform(columns).T
        low = spectrum[:fewer_rows, :fewer_columns]
        made[:, channel] = (cosine_transform(fewer_rows).T @ low @ cosine_transform(fewer_columns)).ravel()
    return made * (np.sqrt(fewer_rows * fewer_columns / (rows * columns)) if gain else 1)


def greedy(coverage: Array, count: int, bonus: Array | None = None) -> Index:
    """Columns of (rows, columns), one after the other, each the one that adds most."""
    chosen: list[int] = []
    for _ in range(count):
        values = {}
        for column in set(range(coverage.shape[1])) - set(chosen):
            together = [*chosen, column]
            values[column] = coverage[:, together].max(axis=1).sum() + (0 if bonus is None else bonus[together].sum())
        chosen.append(max(values, key=lambda column: values[column]))
    return np.sort(chosen)


def mmtok(visual: Array, features: Array, words: Array, count: int) -> Index:
    """Alpha 0.5, temperatures 0.02 and 0.2."""
    about = softmax(unit(words) @ unit(visual).T / 0.02) / len(words)
    alike = softmax(unit(features) @ unit(features).T / 0.2) / len(features)
    return greedy(np.vstack([about, 0.5 * alike]), count)


def catp(visual: Array, words: Array, count: int) -> Index:
    """First stage, lambda 0.7."""
    aligned = (unit(visual) @ unit(words.mean(axis=0)) + 1) / 2
    return greedy((unit(visual) @ unit(visual).T + 1) / 2, count, 0.7 * aligned)


def divprune(visual: Array, count: int) -> Index:
    distance = 1 - unit(visual) @ unit(visual).T
    nearest = [min(distance[i][j] for j in range(len(distance)) if j != i) for i in range(len(distance))]
    chosen = [int(np.argmax(nearest))]
    while len(chosen) < count:
        rest = [i for i in range(len(distance)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: min(distance[i][j] for j in chosen)))
    return np.sort(chosen)


def efficientvla(relevance: Array, visual: Array, count: int, keys: int, alpha: float) -> Index:
    ranked = [int(i) for i in np.argsort(-relevance, kind="stable")]
    key, more = ranked[:keys], count - keys
    task = ranked[keys : keys + int(alpha * more)]
    rest = ranked[keys + len(task) :]
    diversity = {i: 1 - max(float(unit(visual[i]) @ unit(visual[k])) for k in key) for i in rest}
    diverse = sorted(rest, key=lambda i: -diversity[i])[: more - len(task)]
    return np.sort([*key, *task, *diverse])


def visionzip(
    importance: Array, keys: Array, tokens: Array, dominant: int, contextual: int, width: int | None = None
) -> tuple[Index, Array]:
    """Where each new token stands, ascending, and the tokens; with a width as DUET."""
    ranked = np.argsort(-importance, kind="stable")
    first = ranked[:dominant]
    pool = np.sort(ranked[dominant:]) if width is None else ranked[dominant:][: width * contextual]
    anchors = pool[:: max(1, len(pool) // contextual)][:contextual]
    made = {int(i): tokens[i] for i in first}
    members: dict[int, list[int]] = {int(a): [] for a in anchors}
    for i in pool:
        if int(i) not in members:
            likeness = [float(unit(keys[i]) @ unit(keys[a])) for a in anchors]
            members[int(anchors[int(np.argmax(likeness))])].append(int(i))
    for anchor, those in members.items():
        made[anchor] = tokens[anchor] + (tokens[those].mean(axis=0) if those else 0)
    stand = np.sort([*made])
    return stand, np.stack([made[int(i)] for i in stand])


def tome(tokens: Array, metric: Array, size: Array, count: int) -> tuple[Array, Array, list[set[int]]]:
    """One merge: tokens, sizes, and which old tokens each is made of, in the order of those that stay."""
    even, odd = range(0, len(tokens), 2), range(1, len(tokens), 2)
    likeness = {i: [float(unit(metric[i]) @ unit(metric[j])) for j in odd] for i in even}
    goes = sorted(even, key=lambda i: -max(likeness[i]))[:count]
    groups = {i: {i} for i in range(len(tokens)) if i not in goes}
    for i in goes:
        groups[odd[int(np.argmax(likeness[i]))]].add(i)
    return merged(tokens, size, size, groups)


def merged(
    tokens: Array, weights: Array, size: Array, groups: dict[int, set[int]]
) -> tuple[Array, Array, list[set[int]]]:
    """Weighted means and sums of sizes."""
    made = [sum(weights[i] * tokens[i] for i in g) / sum(weights[i] for i in g) for g in groups.values()]
    return np.stack(made), np.array([sum(size[i] for i in g) for g in groups.values()]), list(groups.values())


def mctf(features: Array, received: Array, size: Array) -> Array:
    """Weight of every even with every odd token; temperatures 1, 20 and 40."""
    rare = [(1 / value) / (1 / value).max() for value in (received, size)]
    even, odd = range(0, len(features), 2), range(1, len(features), 2)
    weights = np.empty((len(even), len(odd)))
    for a, i in enumerate(even):
        for b, j in enumerate(odd):
            alike = (float(unit(features[i]) @ unit(features[j])) + 1) / 2
            weights[a, b] = alike * (rare[0][i] * rare[0][j]) ** (1 / 20) * (rare[1][i] * rare[1][j]) ** (1 / 40)
    return weights


def ppe(owner: Index, tokens: int, groups: int) -> Index:
    """Members of each token, the last first, over and over."""
    made = np.empty((tokens, groups), np.int64)
    for token in range(tokens):
        members = [int(i) for i in np.flatnonzero(owner == token)][::-1]
        made[token] = [members[g % len(members)] for g in range(groups)]
    return made


def zipvl(scores: Array, mass: float) -> int:
    """Fewest tokens whose scores add up to a share of all."""
    ranked = sorted(scores, reverse=True)
    return next(n for n in range(1, len(ranked) + 1) if sum(ranked[:n]) >= mass * sum(ranked))


def prefixkv(scores: Array, share: float) -> Index:
    """Tokens that each layer keeps for a share of its attention."""
    return np.array([zipvl(row, share) for row in scores])
