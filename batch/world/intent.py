"""How one user's interest in one product unfolds, as a Markov chain whose order probabilities are known exactly.

An *interest* is a (user, product) pair with a latent intent. It lives through *visits*, at most one a day. In a visit
the user acts (view, click, cart, remove, follow, order) until leaving; an order ends the visit. After a visit the
interest may end; while it lasts, every following day it dies with `FORGET`, or brings a visit with a probability that
depends on the state and on the day of the week; the visit's time of day follows `DAY_RHYTHM`.

The state is (intent class, views so far, in cart, followed). Everything that decides about an order depends on the
state, the weekday and the time of day alone, so for every state

    P(a strictly later order within five days) = P(order in the rest of this visit)
        + sum over states at leaving: P(leave there) P(interest lasts) P(order in a visit on one of the next days)

has a closed form: the first two factors come from the fundamental matrix (I - Q)^-1 of the visit's absorbing chain
(Kemeny & Snell, Finite Markov Chains, ch. III), the last one from a backward recursion over the five days. On the
fifth day only visits that begin before the request's time of day count. A visit's own length (minutes) is neglected at
that edge; nothing else is approximate. `tests/batch/test_generate.py` holds the result against simulated frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ACTION_TYPES",
    "CLICK",
    "DAY_RHYTHM",
    "HORIZON_DAYS",
    "INTENT_GRID",
    "LASTS_AFTER_ORDER",
    "LEAVE",
    "ORDER",
    "WEEK_RHYTHM",
    "IntentChain",
    "day_share",
    "time_of_day",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Event codes of a step; 1..6 are the data's own action types.
LEAVE, VIEW, CART, REMOVE, ORDER, FOLLOW, CLICK = range(7)
ACTION_TYPES = ("", "1", "2", "3", "4", "5", "6")

HORIZON_DAYS = 5
GAP_DAYS_MAX = 21  # an interest without a visit for three weeks is over
FORGET = 0.12  # per day
LASTS_AFTER_ORDER = 0.08  # few buy the same thing twice
INTENT_GRID: Floats = np.array([quarter / 4 for quarter in range(-14, 19)])
VIEWS_MAX = 7  # views and clicks beyond this change nothing

# Relative activity per local hour (UTC+8): asleep at four, busiest at ten in the morning and nine in the evening.
DAY_RHYTHM: Floats = np.array(
    [
        2.6,
        1.3,
        0.7,
        0.5,
        0.4,
        0.5,
        1.0,
        2.2,
        3.8,
        5.2,
        6.1,
        5.8,
        4.9,
        5.0,
        5.3,
        5.2,
        5.0,
        4.6,
        4.5,
        5.6,
        6.9,
        7.4,
        6.7,
        4.6,
    ]
)
# Relative activity per weekday, Monday first.
WEEK_RHYTHM: Floats = np.array([1.05, 1.05, 1.0, 1.0, 0.95, 0.9, 1.05])

_DAY_EDGES: Floats = np.concatenate([[0.0], np.cumsum(DAY_RHYTHM) / DAY_RHYTHM.sum()])


def time_of_day(uniform: Floats) -> Floats:
    """Seconds after local midnight, distributed as `DAY_RHYTHM` when `uniform` is uniform on [0, 1)."""
    seconds: Floats = np.interp(uniform, _DAY_EDGES, np.arange(25) * 3600.0)
    return seconds


def day_share(seconds: Floats) -> Floats:
    """The share of a day's visits that begin before `seconds` after local midnight: the inverse of `time_of_day`."""
    share: Floats = np.interp(seconds, np.arange(25) * 3600.0, _DAY_EDGES)
    return share


def _sigmoid(x: Floats) -> Floats:
    y: Floats = np.asarray(1.0 / (1.0 + np.exp(-x)), np.float64)
    return y


@dataclass(frozen=True)
class IntentChain:
    """The chain's tables. Axes: C intent classes, S states within a class, 7 events or weekdays (Monday first).

    A state within a class is `(views * 2 + in_cart) * 2 + followed`.
    """

    grid: tuple[float, ...] = tuple(INTENT_GRID)

    @cached_property
    def _states(self) -> tuple[Ints, Ints, Ints]:
        index = np.arange((VIEWS_MAX + 1) * 4)
        return index // 4, index // 2 % 2, index % 2

    @cached_property
    def after(self) -> Ints:
        """[S, 7] the state after an event; an order empties the cart and starts the count of views again."""
        views, cart, follow = self._states
        more = np.minimum(views + 1, VIEWS_MAX)
        table = np.empty((len(views), 7), np.int64)
        for event, (v, c, f) in {
            LEAVE: (views, cart, follow),
            VIEW: (more, cart, follow),
            CLICK: (more, cart, follow),
            CART: (views, np.ones_like(cart), follow),
            REMOVE: (views, np.zeros_like(cart), follow),
            FOLLOW: (views, cart, np.ones_like(follow)),
            ORDER: (np.zeros_like(views), np.zeros_like(cart), follow),
        }.items():
            table[:, event] = (v * 2 + c) * 2 + f
        return table

    def _logits(self) -> Floats:
        views, cart, follow = self._states
        u = np.asarray(self.grid)[:, None]
        shape = (len(self.grid), len(views))
        never = np.full(shape, -np.inf)
        logits = np.empty((*shape, 7))
        logits[..., LEAVE] = -0.15 - 0.08 * u + 0.2 * cart
        logits[..., VIEW] = -0.75 + 0.30 * u
        logits[..., CLICK] = 0.45 - 0.05 * u
        logits[..., CART] = np.where(cart == 0, -3.9 + 0.75 * u + 0.10 * views, never)
        logits[..., REMOVE] = np.where(cart == 1, -2.4 - 0.45 * u, never)
        logits[..., FOLLOW] = np.where(follow == 0, -5.2 + 0.45 * u, never)
        logits[..., ORDER] = -7.5 + 1.0 * u + 3.6 * cart + 0.9 * follow + 0.16 * views
        return logits

    @cached_property
    def step(self) -> Floats:
        """[C, S, 7] the probability of each event, leaving included, after an action of a visit."""
        odds = np.exp(self._logits())
        share: Floats = odds / odds.sum(-1, keepdims=True)
        return share

    @cached_property
    def first(self) -> Floats:
        """[C, S, 7] the probability of each event as a visit's first; nobody leaves before acting."""
        odds = np.exp(self._logits())
        odds[..., LEAVE] = 0.0
        share: Floats = odds / odds.sum(-1, keepdims=True)
        return share

    @cached_property
    def lasts(self) -> Floats:
        """[C, S] the probability that the interest outlives a visit that ended in this state."""
        _, cart, follow = self._states
        return _sigmoid(-0.2 + 0.5 * np.asarray(self.grid)[:, None] + 1.3 * cart + 0.8 * follow)

    @cached_property
    def returns(self) -> Floats:
        """[C, S, 7] the probability of a visit on a day of that weekday, the interest lasting."""
        views, cart, follow = self._states
        rate = _sigmoid(-1.7 + 0.4 * np.asarray(self.grid)[:, None] + 0.9 * cart + 0.5 * follow + 0.05 * views)
        return np.minimum(rate[..., None] * WEEK_RHYTHM, 0.98)

    @cached_property
    def gap(self) -> Floats:
        """[C, S, 7, GAP_DAYS_MAX] the chance that the next visit comes within 1, 2, … days of a day of that weekday."""
        waiting = np.ones(self.returns.shape)
        table = np.empty((*waiting.shape, GAP_DAYS_MAX))
        come = np.zeros_like(waiting)
        for days in range(1, GAP_DAYS_MAX + 1):
            visit = np.roll(self.returns, -days, axis=-1)  # [..., w] is the weekday `days` after w
            come = come + waiting * (1 - FORGET) * visit
            waiting = waiting * (1 - FORGET) * (1 - visit)
            table[..., days - 1] = come
        return table

    def _moves(self, events: Floats) -> Floats:
        """[C, S, S] the chance to go from state to state by one event that neither leaves nor orders."""
        classes, states, _ = events.shape
        moves = np.zeros((classes, states, states))
        for event in (VIEW, CART, REMOVE, FOLLOW, CLICK):
            moves[:, np.arange(states), self.after[:, event]] += events[..., event]
        return moves

    @cached_property
    def order_within_horizon(self) -> tuple[Floats, Floats]:
        """P(order strictly later, within five days) of a request, given the state that its action led to.

        Returns two tables [2, C, S, 7]; the first axis says whether the request's action is an order (which ends the
        visit), the last one is the weekday of the visit. The probability is `first + second * day_share(time of day)`.
        """
        states = self.step.shape[1]
        visits = np.linalg.inv(np.eye(states) - self._moves(self.step))  # expected actions spent in each state
        orders = np.einsum("cst,ct->cs", visits, self.step[..., ORDER])
        lasting = visits * (self.step[..., LEAVE] * self.lasts)[:, None, :]
        start = self._moves(self.first)
        orders_of_visit = self.first[..., ORDER] + np.einsum("cst,ct->cs", start, orders)
        lasting_of_visit = start @ lasting

        later = np.zeros((2, *self.returns.shape))  # constant, factor of day_share; beyond the horizon nothing counts
        for days in range(HORIZON_DAYS, 0, -1):
            visit = np.roll(self.returns, -days, axis=-1)
            of_visit = lasting_of_visit @ later
            of_visit[0] += orders_of_visit[..., None]
            if days == HORIZON_DAYS:
                later = np.stack([np.zeros_like(visit), (1 - FORGET) * visit * of_visit[0]])
            else:
                later = (1 - FORGET) * (visit * of_visit + (1 - visit) * later)
        acting = lasting @ later
        acting[0] += orders[..., None]
        constant, share = np.stack([acting, LASTS_AFTER_ORDER * later], axis=1)
        return constant, share
