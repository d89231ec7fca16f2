"""The offline filter: predict sets in an embedded store, a calibrated threshold, candidates in and out. No torch."""
