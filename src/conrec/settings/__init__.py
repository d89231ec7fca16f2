"""The sections of a configuration, by room; `conrec.config` puts them together."""
