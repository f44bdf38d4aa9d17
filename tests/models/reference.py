"""The layers once more, slowly and in float64, from their definitions: NumPy only.

Images are [N,H,W,C] as in the package. Every window is visited by itself, so that nothing depends
on how XLA pads or rounds.
"""

import numpy as np


def windows(size, window, stride, padding, ceil_mode=False):
    """[(start, stop)] of each window along one axis, in coordinates of the image.

    Parts below 0 and above `size` lie in the padding or, with `ceil_mode`, beyond it.
    """
    low, high = padding
    found = []
    start = -low
    while start + window <= size + high:
        found.append((start, start + window))
        start += stride
    covered = found[-1][1] if found else -low
    if ceil_mode and covered < size + high and start < size:
        found.append((start, start + window))
    return found


def sides(padding):
    """1 or (0, 3) or ((0, 1), (0, 1)) -> ((top, bottom), (left, right))."""
    height, width = (padding, padding) if np.isscalar(padding) else padding
    return tuple((p, p) if np.isscalar(p) else tuple(p) for p in (height, width))


def both(value):
    return (value, value) if np.isscalar(value) else tuple(value)


def patches(x, window, stride, padding, ceil_mode=False):
    """Yields (row, column, top, left, patch) of every window; the patch is clipped to the image."""
    pads, (kh, kw), (sh, sw) = sides(padding), both(window), both(stride)
    for i, (top, bottom) in enumerate(windows(x.shape[1], kh, sh, pads[0], ceil_mode)):
        for j, (left, right) in enumerate(windows(x.shape[2], kw, sw, pads[1], ceil_mode)):
            yield i, j, top, left, x[:, max(top, 0) : bottom, max(left, 0) : right]


def out_size(x, window, stride, padding, ceil_mode=False):
    pads, kernel, steps = sides(padding), both(window), both(stride)
    return tuple(
        len(windows(x.shape[axis + 1], kernel[axis], steps[axis], pads[axis], ceil_mode))
        for axis in (0, 1)
    )


def conv(x, kernel, stride=1, padding=0, groups=1, bias=None):
    """Cross-correlation; kernel [kh,kw,C/groups,F]: group g maps its share of C to its of F."""
    kh, kw, cin, cout = kernel.shape
    (top, bottom), (left, right) = sides(padding)
    sh, sw = both(stride)
    height, width = out_size(x, (kh, kw), stride, padding)
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    kernel = np.asarray(kernel, np.float64)
    share = cout // groups
    y = np.zeros((x.shape[0], height, width, cout))
    for i in range(height):
        rows = x[:, i * sh : i * sh + kh]
        columns = [rows[:, :, j * sw : j * sw + kw] for j in range(width)]
        strip = np.stack(columns, 1)  # N, width, kh, kw, C
        for g in range(groups):
            part = strip[..., g * cin : (g + 1) * cin].reshape(x.shape[0] * width, -1)
            weights = kernel[..., g * share : (g + 1) * share].reshape(-1, share)
            product = (part @ weights).reshape(x.shape[0], width, share)
            y[:, i, :, g * share : (g + 1) * share] = product
    return y if bias is None else y + bias


def conv_gradients(x, kernel, g, stride=1, padding=0, groups=1):
    """(dx, dkernel) of sum(conv(x, kernel) * g): every output hands its share back."""
    kh, kw, cin, cout = kernel.shape
    (top, bottom), (left, right) = sides(padding)
    sh, sw = both(stride)
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    dpadded, dkernel = np.zeros_like(padded), np.zeros(kernel.shape)
    share = cout // groups
    for i in range(g.shape[1]):
        for j in range(g.shape[2]):
            for k in range(groups):
                at = np.s_[:, i * sh : i * sh + kh, j * sw : j * sw + kw, k * cin : (k + 1) * cin]
                to = np.s_[..., k * share : (k + 1) * share]
                out = g[:, i, j][to]
                dkernel[to] += np.einsum("nhwc,nf->hwcf", padded[at], out)
                dpadded[at] += np.einsum("hwcf,nf->nhwc", kernel[to], out)
    return dpadded[:, top : top + x.shape[1], left : left + x.shape[2]], dkernel


def max_pool(x, window, stride, padding=0, ceil_mode=False):
    y = np.empty((x.shape[0], *out_size(x, window, stride, padding, ceil_mode), x.shape[3]))
    for i, j, _, _, patch in patches(x, window, stride, padding, ceil_mode):
        y[:, i, j] = patch.max((1, 2))
    return y


def max_pool_gradient(x, g, window, stride, padding=0, ceil_mode=False):
    """Each window gives its gradient to its first maximum in reading order."""
    dx = np.zeros(x.shape)
    for i, j, top, left, patch in patches(x, window, stride, padding, ceil_mode):
        for n in range(x.shape[0]):
            for c in range(x.shape[3]):
                row, column = divmod(int(np.argmax(patch[n, :, :, c])), patch.shape[2])
                dx[n, max(top, 0) + row, max(left, 0) + column, c] += g[n, i, j, c]
    return dx


def avg_pool(x, window, stride, padding=0, ceil_mode=False, count_include_pad=False):
    kh, kw = both(window)
    y = np.empty((x.shape[0], *out_size(x, window, stride, padding, ceil_mode), x.shape[3]))
    (_, below), (_, beside) = sides(padding)
    for i, j, top, left, patch in patches(x, window, stride, padding, ceil_mode):
        count = patch.shape[1] * patch.shape[2]
        if count_include_pad:  # not what a window extends beyond the padded image
            bottom, right = min(top + kh, x.shape[1] + below), min(left + kw, x.shape[2] + beside)
            count = (bottom - top) * (right - left)
        y[:, i, j] = np.asarray(patch, np.float64).sum((1, 2)) / count
    return y


def local_response_norm(x, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Krizhevsky et al. 2012, section 3.3: the sum runs over max(0, i-n/2) .. min(N-1, i+n/2)."""
    x = np.asarray(x, np.float64)
    channels = x.shape[-1]
    y = np.empty_like(x)
    for i in range(channels):
        neighbors = range(max(0, i - n // 2), min(channels - 1, i + n // 2) + 1)
        total = sum(x[..., j] ** 2 for j in neighbors)
        y[..., i] = x[..., i] / (k + alpha * total) ** beta
    return y


def batch_norm(x, scale, bias, mean, var, epsilon):
    return (x - mean) / np.sqrt(var + epsilon) * scale + bias


def relu(x):
    return np.where(x > 0, x, 0.0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def squeeze_excite(x, w1, b1, w2, b2):
    """Hu et al. 2018, equations 2 to 4."""
    squeezed = x.mean((1, 2))
    gate = sigmoid(relu(squeezed @ w1 + b1) @ w2 + b2)
    return np.einsum("nhwc,nc->nhwc", x, gate)


def subsample(x, coefficient, bias):
    """LeCun et al. 1998, S2 and S4: sum of each 2x2 window, times a coefficient, plus a bias."""
    n, height, width, channels = x.shape
    total = np.asarray(x, np.float64).reshape(n, height // 2, 2, width // 2, 2, channels)
    return total.sum((2, 4)) * coefficient + bias
