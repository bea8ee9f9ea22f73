"""``python -m hf_negmine`` is the command ``hf-negmine``, for where its script is not on the path."""

from hf_negmine.commands.cli import main

if __name__ == "__main__":
    main()
