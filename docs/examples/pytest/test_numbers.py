"""PYTHONMALLOC=malloc memcheck --leak-check=no python3 -m pytest -p no:cacheprovider

PYTHONMALLOC=malloc gives each object a block of its own; Python itself keeps much until it ends, so leaks are left out.
"""
import numbers_c


def test_last():
    assert isinstance(numbers_c.last(3), int)
