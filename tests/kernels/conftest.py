"""What the tests of several kernels share."""

import pytest
import torch


@pytest.fixture
def poisoned(monkeypatch):
    """New memory is full of NaN, or of the largest number, so that what nobody writes is seen."""

    def poison(allocate):
        def allocated(*arguments, **keywords):
            new = allocate(*arguments, **keywords)
            if new.is_floating_point() or new.is_complex():
                return new.fill_(torch.nan)
            return new.fill_(True if new.dtype == torch.bool else torch.iinfo(new.dtype).max)

        return allocated

    monkeypatch.setattr(torch, "empty", poison(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poison(torch.Tensor.new_empty))
