"""The mergeable summary of what a model saw and said in one window of time.

Counts on a grid that the bundle fixes: merging is addition, so it is exact, commutes and associates. (Quantile sketches
merge lossily and lose power over a fleet.)
"""
