"""The cases of ``--quick``."""

# one case of each kind, enough to see within half a minute that a library is wired up
_ONE_OF_EACH = """
    corner-bias raster-k2x3-dilated periodic-even-dilated exponential-norm-0.0001 pluconv1x1-2d
    qrconv1x1-m100 chain-inverses actnorm-2d singular-corner singular-quarter-turns ill-corner
    lfilter-long-b-1-whole from_psf-odd-periodic-each least_squares-periodicconv-array
"""
# of them, where eager code is compiled too, operation by operation, those with all laws
QUICK_EAGER = ("periodic-even-dilated",)
# and those with laws of what happens in eager code alone
QUICK_EAGER_LAWS = {
    "singular-corner": ("singular",),
    "ill-corner": ("warning", "errors"),
    "pluconv1x1-2d": ("autodiff",),
}
# laws for which a compiler makes all again, and the cases that it does so for
QUICK_COMPILED_LAWS = {"empty": ("corner-bias", "periodic-even-dilated")}
# laws of what all operators share, for which one case of each kind is enough
_SHARED_LAWS = """
    copies determinism diagnosis edits empty guard kind layout no_mutation no_promotion threads
    updates
"""
# cases of what native code may get wrong besides, where nothing is compiled for seconds: held to
# all other laws
_MORE = """
    corner-2d+- corner-3d-dilated corner-4d-++- raster-3d+1 emerging-2d chain-merged
    exponential-circular-k7-on-2x3 exponential-zeros-skew symmetric-bias symmetric-long
    bordered-zero-zero bordered-mirror-periodic-symmetric bordered-symmetric-odd
    conv1x1-2d orthogonalconv1x1-m2 circulantconv1x1-c4
    singular-symmetric singular-actnorm ill-symmetric ill-pixel tiny-periodicconv
    corner-on-18-rows raster-on-18-rows corner-3d-on-18-rows corner-wide-on-one-image
    corner-tall-on-one-image corner-17-images corner-31-images corner-25-channels corner-signal
    sosfilt-0-zi damp_for_noise-symmetricconv squeeze-4-2-haar unsqueeze-3-2-dct
    before--1-dilation-2
"""
QUICK, QUICK_SHARED_LAWS, QUICK_MORE = (
    tuple(names.split()) for names in (_ONE_OF_EACH, _SHARED_LAWS, _MORE)
)
