"""The commands of ``hf-negmine``, a file each. Heavy modules are imported inside them: help is quick."""
