"""SciPy's and scikit-learn's own array-API tests, run on netcl."""
