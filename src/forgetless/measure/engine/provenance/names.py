"""torch's operations by what they do to axes; a name may also end in the `_` of writing in place.

What stands in no list of this folder may do anything, and ends the knowledge: which axis a result has in common with
its input cannot be told by lengths, since another axis may be as long as there are samples.
"""

from __future__ import annotations

#: New tensors of constants.
_CONSTANT = (
    "new_zeros new_ones new_full new_empty new_tensor new_empty_strided "
    "zeros_like ones_like full_like empty_like rand_like randn_like randint_like"
)
CONSTANT = frozenset(_CONSTANT.split())
#: New tensors, of which samples may give the size.
SIZED = frozenset({"zeros", "ones", "empty", "eye", "arange", "rand", "randn"})
#: Writes to the first argument at an index.
_WRITING = (
    "__setitem__ index_put_ index_put index_add_ index_add index_copy_ index_copy index_reduce_ "
    "scatter_ scatter scatter_add_ scatter_add scatter_reduce_ scatter_reduce"
)
WRITING = frozenset(_WRITING.split())
JOINING = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"})

_IN_PLACE = "__iadd__ __isub__ __imul__ __itruediv__ __ifloordiv__ __ipow__ __iand__ __ior__ __ixor__"
_OPERATORS = (
    "__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __div__ __rdiv__ __floordiv__ "
    "__rfloordiv__ __mod__ __rmod__ __pow__ __rpow__ __and__ __rand__ __or__ __ror__ __xor__ __rxor__ __eq__ __ne__ "
    "__lt__ __le__ __gt__ __ge__ __neg__ __pos__ __abs__ __invert__"
)
_TWO = (
    "add sub subtract rsub mul multiply div divide true_divide floor_divide pow float_power where lerp addcmul addcdiv "
    "maximum minimum fmax fmin max min atan2 arctan2 fmod remainder copysign nextafter ldexp gcd lcm hypot heaviside "
    "eq ne lt le gt ge not_equal less less_equal greater greater_equal isclose logical_and logical_or logical_xor "
    "bitwise_and bitwise_or bitwise_xor masked_fill xlogy logaddexp logaddexp2 clamp clamp_min clamp_max clip "
    "complex polar copy special_xlogy special_xlog1py special_zeta "
    "mse_loss l1_loss smooth_l1_loss huber_loss soft_margin_loss binary_cross_entropy binary_cross_entropy_with_logits "
    "kl_div poisson_nll_loss"
)
_ONE = (
    "abs absolute acos acosh angle arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh bitwise_not ceil "
    "celu clone conj conj_physical contiguous cos cosh deg2rad detach digamma elu erf erfc erfinv exp exp2 expm1 fix "
    "floor frac gelu hardshrink hardsigmoid hardswish hardtanh i0 isfinite isinf isnan isneginf isposinf isreal "
    "leaky_relu lgamma log log10 log1p log2 log_sigmoid logical_not logit logsigmoid mish nan_to_num neg negative "
    "positive polygamma rad2deg real imag reciprocal relu relu6 round rrelu rsqrt selu sgn sigmoid sign signbit silu "
    "sin sinc sinh softplus softshrink sqrt square tan tanh tanhshrink threshold trunc special_digamma special_entr "
    "special_erf special_erfc special_erfcx special_erfinv special_exp2 special_expit special_expm1 special_gammaln "
    "special_i0 special_i0e special_i1 special_i1e special_log1p special_log_ndtr special_logit special_ndtr "
    "special_ndtri special_psi special_round special_sinc "
    "float double half bfloat16 int long short bool byte char cfloat cdouble chalf cpu cuda data requires_grad_ "
    "dropout alpha_dropout feature_dropout feature_alpha_dropout bernoulli normal_ uniform_ zero fill resolve_conj "
    "resolve_neg native_dropout tril triu"
)
#: Element by element: axes are aligned from the right, and missing ones put in front.
POINTWISE = frozenset(f"{_OPERATORS} {_TWO} {_ONE}".split()) | frozenset(_IN_PLACE.split())
#: As the first argument is; the second gives a dtype, a device or a shape.
LIKE = frozenset({"to", "type", "type_as", "expand_as"})


def is_among(name: str, names: frozenset[str]) -> bool:
    """Whether a name, or what it is without the `_` of writing in place, is one of these."""
    return name in names or (writes(name) and name[:-1] in names)


def writes(name: str) -> bool:
    """Whether an operation of this name writes to its first argument."""
    return name == "__setitem__" or name in _IN_PLACE.split() or (name.endswith("_") and not name.endswith("__"))
