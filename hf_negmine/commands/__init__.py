"""The commands of ``hf-negmine``, one file each. Heavy modules are imported inside functions, so that help is quick."""
