// A handler whose module cannot be loaded.
throw new RangeError("broken by intention");
