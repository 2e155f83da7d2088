"""The compiler: analysis of a model, choice of methods, and the compiled EBM."""
