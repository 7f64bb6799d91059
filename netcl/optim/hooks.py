"""Hooks: functions of the user's that run before and after steps, and before and after a state is saved or loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

from netcl.errors import ArgumentError
from netcl.validation import flag, shown

Hook = Callable[..., Any]


@final
class HookHandle:
    """What registering a hook returns, to take it out again. Also a context manager that does so at its end."""

    def __init__(self, hooks: dict[HookHandle, Hook]) -> None:
        self._hooks = hooks

    def remove(self) -> None:
        """Take the hook out. A second call does nothing."""
        self._hooks.pop(self, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@final
class Hooks:
    """The hooks of one optimizer, each kind in the order in which they run."""

    def __init__(self) -> None:
        self.before_step: dict[HookHandle, Hook] = {}
        self.after_step: dict[HookHandle, Hook] = {}
        self.before_saving: dict[HookHandle, Hook] = {}
        self.after_saving: dict[HookHandle, Hook] = {}
        self.before_loading: dict[HookHandle, Hook] = {}
        self.after_loading: dict[HookHandle, Hook] = {}

    @property
    def of_steps(self) -> bool:
        """Whether a step has any."""
        return bool(self.before_step or self.after_step)

    def stepped(self, optimizer: Any, step: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run ``step(*args, **kwargs)`` between the hooks of a step, which get the optimizer among ``args`` as well."""
        everything = (optimizer, *args)
        for hook in tuple(self.before_step.values()):
            changed = hook(optimizer, everything, kwargs)
            if changed is None:
                continue
            if not (isinstance(changed, tuple) and len(changed) == 2 and isinstance(changed[0], tuple | list)):
                raise ArgumentError(
                    "a hook that runs before a step returns None, or (args, kwargs) to go on with, got "
                    f"{shown(changed)}"
                )
            everything, kwargs = tuple(changed[0]), dict(changed[1])
        result = step(*everything[1:], **kwargs)
        for hook in tuple(self.after_step.values()):
            hook(optimizer, everything, kwargs)
        return result

    @staticmethod
    def passed_on(hooks: Mapping[HookHandle, Hook], optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
        """The state after each of the hooks, which may return another one."""
        for hook in tuple(hooks.values()):
            changed = hook(optimizer, state)
            state = state if changed is None else changed
        return state

    @staticmethod
    def told(hooks: Mapping[HookHandle, Hook], optimizer: Any) -> None:
        """Call each of the hooks with the optimizer."""
        for hook in tuple(hooks.values()):
            hook(optimizer)


class Hookable:
    """What has hooks: functions that are called around its steps, and around saving and loading its state.

    Each method returns a handle, whose ``remove()`` takes the hook out again. Hooks run in the order in which they were
    registered. They are not copied or pickled with the optimizer.
    """

    _hooks: Hooks

    def register_step_pre_hook(self, hook: Hook) -> HookHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may return other ``(args, kwargs)``.

        ``args`` begins with the optimizer. The hooks of a step run on the host when it is enqueued, also for one that
        :class:`netcl.amp.GradScaler` takes, whether the device then skips it or not.
        """
        return _register(self._hooks.before_step, hook)

    def register_step_post_hook(self, hook: Hook) -> HookHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step was enqueued."""
        return _register(self._hooks.after_step, hook)

    def register_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> HookHandle:
        """Call ``hook(optimizer)`` before a state dict is made; with ``prepend`` before the hooks there are."""
        return _register(self._hooks.before_saving, hook, prepend)

    def register_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> HookHandle:
        """Call ``hook(optimizer, state_dict)`` after a state dict was made; it may return another one."""
        return _register(self._hooks.after_saving, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> HookHandle:
        """Call ``hook(optimizer, state_dict)`` before one is loaded; it may return another one."""
        return _register(self._hooks.before_loading, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> HookHandle:
        """Call ``hook(optimizer)`` after a state dict was loaded."""
        return _register(self._hooks.after_loading, hook, prepend)


def _register(hooks: dict[HookHandle, Hook], hook: Any, prepend: Any = False) -> HookHandle:
    """Add a hook after the others, or before them.

    Raises
    ------
    ArgumentError
        If it cannot be called, or ``prepend`` is not a bool.
    """
    if not callable(hook):
        raise ArgumentError(f"hook must be a function, got {shown(hook)}")
    first = flag("prepend", prepend)
    handle = HookHandle(hooks)
    others = dict(hooks) if first else {}
    if first:
        hooks.clear()
    hooks[handle] = hook
    hooks.update(others)
    return handle
