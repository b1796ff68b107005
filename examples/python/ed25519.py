"""Ed25519 signatures in plain Python, after RFC 8032, sections 5.1.5 and 5.1.6.

One signature takes some milliseconds, and how long exactly depends on the key: whoever can
measure that on this machine can find the key out. Where others share the machine, sign with a
library such as cryptography instead.
"""

from hashlib import sha512

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P

# Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, x * y = T/Z (section 5.1.4).
NEUTRAL = (0, 1, 1, 0)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(number, point):
    product = NEUTRAL
    while number > 0:
        if number & 1:
            product = add(product, point)
        point = add(point, point)
        number >>= 1
    return product


def encode(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def base_point():
    """The even x that goes with y = 4/5 (section 5.1.3)."""
    y = 4 * pow(5, P - 2, P) % P
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P != 0:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x & 1:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = base_point()


def scalar_and_prefix(seed):
    digest = sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    return scalar & (1 << 254) - 8 | 1 << 254, digest[32:]


def public_key(seed):
    return encode(multiply(scalar_and_prefix(seed)[0], BASE))


def sign(seed, message):
    scalar, prefix = scalar_and_prefix(seed)

    def digest(*parts):
        return int.from_bytes(sha512(b"".join(parts)).digest(), "little") % L

    r = digest(prefix, message)
    commitment = encode(multiply(r, BASE))
    s = (r + digest(commitment, public_key(seed), message) * scalar) % L
    return commitment + s.to_bytes(32, "little")
