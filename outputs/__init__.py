"""All that a generator is turned into on disk: sheets, films, samples, exports, cards."""
