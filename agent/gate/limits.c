#include "agent/gate/limits.h"

#include <string.h>

#include "agent/gate/window.h"

enum {
	IN_FLIGHT_MAX = 4096, MINUTE_MS = 60000, HOUR_MS = 3600000, WINDOW_MAX = 100000,
	USER_STAMPS_MAX = 32, USERS_MAX = 16384, BUCKETS = 4096
};

/* One user: his turns and his own windows. Kept while any of it says something. */
struct user {
	struct user *next;
	char guid[UUID_SIZE];
	struct limits_turn *active, *waiting;
	struct window hour, wrong;
	int64_t stamps[USER_STAMPS_MAX], wrong_stamps[USER_STAMPS_MAX];
};

struct limits {
	struct limits_settings settings;
	unsigned in_flight;
	bool latched[LATCHES];
	void (*on_latch)(enum latch latch, void *arg);
	void *on_latch_arg;
	struct window passwords, unlocks, latch, wrong, lookups;
	struct user *buckets[BUCKETS];
	unsigned users;
};

/* Users -------------------------------------------------------------------------------------------------------------------------------- */

static struct user **user_slot(struct limits *limits, const char *guid)
{
	/* FNV-1a: objectGUIDs are not chosen by an attacker, and the number of users is bounded. */
	uint32_t hash = 2166136261u;
	for (const char *at = guid; *at; at++)
		hash = (hash ^ (uint8_t)*at) * 16777619u;
	struct user **slot = &limits->buckets[hash % BUCKETS];
	while (*slot && strcmp((*slot)->guid, guid))
		slot = &(*slot)->next;
	return slot;
}

static void drop_slot(struct limits *limits, struct user **slot)
{
	struct user *user = *slot;
	*slot = user->next;
	free(user);
	limits->users--;
}

static bool is_busy(const struct user *user)
{
	return user->active || user->waiting || user->hour.pending || user->wrong.pending;
}

static bool is_idle(const struct user *user)
{
	return !is_busy(user) && !user->hour.count && !user->wrong.count;
}

static int64_t newest(const struct window *window)
{
	return window->count ? window->stamps[window->count - 1] : INT64_MIN;
}

static int64_t last_stamp(const struct user *user)
{
	int64_t hour = newest(&user->hour), wrong = newest(&user->wrong);
	return hour > wrong ? hour : wrong;
}

static void drop_if_idle(struct limits *limits, const char *guid)
{
	struct user **slot = user_slot(limits, guid);
	if (*slot && is_idle(*slot))
		drop_slot(limits, slot);
}

static void drop_idle_users(struct limits *limits, int64_t now_ms)
{
	for (unsigned i = 0; i < BUCKETS; i++) {
		for (struct user **slot = &limits->buckets[i]; *slot;) {
			window_expire(&(*slot)->hour, now_ms);
			window_expire(&(*slot)->wrong, now_ms);
			if (is_idle(*slot))
				drop_slot(limits, slot);
			else
				slot = &(*slot)->next;
		}
	}
}

/* The one whose last write, or wrong password, is the oldest. */
static void drop_oldest_user(struct limits *limits)
{
	struct user **oldest = NULL;
	for (unsigned i = 0; i < BUCKETS; i++) {
		for (struct user **slot = &limits->buckets[i]; *slot; slot = &(*slot)->next) {
			if (!is_busy(*slot) && !is_idle(*slot) && (!oldest || last_stamp(*slot) < last_stamp(*oldest)))
				oldest = slot;
		}
	}
	if (oldest)
		drop_slot(limits, oldest);
}

static void make_room(struct limits *limits, int64_t now_ms)
{
	if (limits->users < USERS_MAX)
		return;
	drop_idle_users(limits, now_ms);
	if (limits->users >= USERS_MAX)
		drop_oldest_user(limits);
}

static struct user *get_user(struct limits *limits, const char *guid)
{
	struct user **slot = user_slot(limits, guid);
	if (*slot)
		return *slot;
	struct user *user = calloc(1, sizeof *user);
	if (!user)
		return NULL;
	strncpy(user->guid, guid, sizeof user->guid - 1);
	user->hour = (struct window){ .stamps = user->stamps, .capacity = USER_STAMPS_MAX, .span_ms = HOUR_MS };
	user->wrong = (struct window){ .stamps = user->wrong_stamps, .capacity = USER_STAMPS_MAX, .span_ms = HOUR_MS };
	*slot = user;
	limits->users++;
	return user;
}

/* The whole --------------------------------------------------------------------------------------------------------------------------- */

static unsigned at_most(unsigned value, unsigned most)
{
	return value < most ? value : most;
}

static bool apply_settings(struct limits *limits, const struct limits_settings *settings)
{
	struct limits_settings new = *settings;
	new.in_flight = new.in_flight ? at_most(new.in_flight, IN_FLIGHT_MAX) : 1;
	new.per_minute = at_most(new.per_minute, WINDOW_MAX);
	new.unlocks_per_minute = at_most(new.unlocks_per_minute, WINDOW_MAX);
	new.latch_per_hour = at_most(new.latch_per_hour, WINDOW_MAX - 1);
	new.per_user_hour = at_most(new.per_user_hour, USER_STAMPS_MAX);
	new.wrong_per_user_hour = at_most(new.wrong_per_user_hour, USER_STAMPS_MAX);
	new.wrong_per_minute = at_most(new.wrong_per_minute, WINDOW_MAX);
	new.lookups_per_minute = at_most(new.lookups_per_minute, WINDOW_MAX);
	/* One place more than the latch's number: it closes where more than that were applied. */
	if (!window_resize(&limits->passwords, new.per_minute) || !window_resize(&limits->unlocks, new.unlocks_per_minute) ||
	    !window_resize(&limits->wrong, new.wrong_per_minute) || !window_resize(&limits->lookups, new.lookups_per_minute) ||
	    !window_resize(&limits->latch, new.latch_per_hour ? new.latch_per_hour + 1 : 0))
		return false;
	limits->settings = new;
	return true;
}

struct limits *limits_new(const struct limits_settings *settings)
{
	struct limits *limits = calloc(1, sizeof *limits);
	if (!limits)
		return NULL;
	limits->passwords.span_ms = limits->unlocks.span_ms = limits->wrong.span_ms = limits->lookups.span_ms = MINUTE_MS;
	limits->latch.span_ms = HOUR_MS;
	if (!apply_settings(limits, settings)) {
		limits_free(limits);
		return NULL;
	}
	return limits;
}

void limits_free(struct limits *limits)
{
	if (!limits)
		return;
	for (unsigned i = 0; i < BUCKETS; i++) {
		while (limits->buckets[i])
			drop_slot(limits, &limits->buckets[i]);
	}
	free(limits->passwords.stamps);
	free(limits->unlocks.stamps);
	free(limits->latch.stamps);
	free(limits->wrong.stamps);
	free(limits->lookups.stamps);
	free(limits);
}

void limits_reconfigure(struct limits *limits, const struct limits_settings *settings)
{
	/* Without memory the old numbers hold on. */
	(void)apply_settings(limits, settings);
}

enum status limits_enter(struct limits *limits)
{
	if (limits->in_flight >= limits->settings.in_flight)
		return STATUS_AGENT_OVERLOADED;
	limits->in_flight++;
	return STATUS_OK;
}

void limits_leave(struct limits *limits)
{
	if (limits->in_flight)
		limits->in_flight--;
}

unsigned limits_in_flight(const struct limits *limits)
{
	return limits->in_flight;
}

/* Writes ------------------------------------------------------------------------------------------------------------------------------ */

static void close_latch(struct limits *limits, enum latch latch)
{
	if (limits->latched[latch])
		return;
	limits->latched[latch] = true;
	if (limits->on_latch)
		limits->on_latch(latch, limits->on_latch_arg);
}

static enum status throttle(int64_t wait_s, int64_t *ret_retry_after_s)
{
	*ret_retry_after_s = wait_s;
	return wait_s ? STATUS_AGENT_THROTTLED : STATUS_OK;
}

static enum status admit_unlock(struct limits *limits, int64_t now_ms, int64_t *ret_retry_after_s)
{
	window_expire(&limits->unlocks, now_ms);
	enum status status = throttle(window_wait_s(&limits->unlocks, limits->settings.unlocks_per_minute, now_ms), ret_retry_after_s);
	limits->unlocks.pending += status == STATUS_OK;
	return status;
}

/* The throttles come first: what they hold back has not been applied and so closes no latch. */
static enum status admit_password(struct limits *limits, const char *guid, int64_t now_ms, int64_t *ret_retry_after_s)
{
	const struct limits_settings *settings = &limits->settings;
	make_room(limits, now_ms);
	struct user *user = get_user(limits, guid);
	if (!user)
		return STATUS_AGENT_INTERNAL;
	window_expire(&limits->passwords, now_ms);
	window_expire(&limits->latch, now_ms);
	window_expire(&user->hour, now_ms);
	int64_t minute = window_wait_s(&limits->passwords, settings->per_minute, now_ms), hour = window_wait_s(&user->hour, settings->per_user_hour, now_ms);
	enum status status = throttle(minute > hour ? minute : hour, ret_retry_after_s);
	if (status == STATUS_OK && settings->latch_per_hour && limits->latch.count >= settings->latch_per_hour) {
		close_latch(limits, LATCH_RESETS);
		status = STATUS_AGENT_LATCHED;
	}
	/* The last places below the latch are taken by writes whose end is open: they, and not this one, decide. */
	if (status == STATUS_OK)
		status = throttle(window_wait_s(&limits->latch, settings->latch_per_hour, now_ms), ret_retry_after_s);
	if (status == STATUS_OK) {
		limits->passwords.pending++;
		limits->latch.pending++;
		user->hour.pending++;
	}
	drop_if_idle(limits, guid);
	return status;
}

enum status limits_admit(struct limits *limits, const char *guid, bool sets_password, int64_t now_ms, int64_t *ret_retry_after_s)
{
	*ret_retry_after_s = 0;
	if (limits->latched[LATCH_RESETS])
		return STATUS_AGENT_LATCHED;
	return sets_password ? admit_password(limits, guid, now_ms, ret_retry_after_s) : admit_unlock(limits, now_ms, ret_retry_after_s);
}

static void settle(struct window *window, bool counts, int64_t now_ms)
{
	if (window->pending)
		window->pending--;
	if (counts)
		window_add(window, now_ms);
}

void limits_settle(struct limits *limits, const char *guid, bool sets_password, bool counts, int64_t now_ms)
{
	if (!sets_password) {
		settle(&limits->unlocks, counts, now_ms);
		return;
	}
	settle(&limits->passwords, counts, now_ms);
	settle(&limits->latch, counts, now_ms);
	struct user *user = *user_slot(limits, guid);
	if (user)
		settle(&user->hour, counts, now_ms);
	drop_if_idle(limits, guid);
}

void limits_restore(struct limits *limits, const char *guid, bool sets_password, int64_t applied_at_ms)
{
	if (!sets_password) {
		window_add(&limits->unlocks, applied_at_ms);
		return;
	}
	window_add(&limits->passwords, applied_at_ms);
	window_add(&limits->latch, applied_at_ms);
	if (limits->users >= USERS_MAX)
		drop_oldest_user(limits);
	struct user *user = get_user(limits, guid);
	if (user)
		window_add(&user->hour, applied_at_ms);
	const struct window *latch = &limits->latch;
	if (latch->capacity && latch->count == latch->capacity && latch->stamps[latch->count - 1] - latch->stamps[0] < latch->span_ms)
		close_latch(limits, LATCH_RESETS);
}

/* Questions ---------------------------------------------------------------------------------------------------------------------------- */

/* Whoever sends the requests must not be able to lock the account: the user himself is left two tries, one where the directory locks at three. */
unsigned limits_safe_guesses(unsigned lockout_threshold)
{
	return lockout_threshold == 0 ? UINT32_MAX : lockout_threshold > 3 ? lockout_threshold - 2 : lockout_threshold == 3 ? 2 : 1;
}

static unsigned guesses_of_user(const struct limits *limits, unsigned lockout_threshold)
{
	unsigned most = limits->settings.wrong_per_user_hour, safe = limits_safe_guesses(lockout_threshold);
	return most && safe < most ? safe : most;
}

/* `most`: wrong ones of this user an hour, 0: any number. */
static enum status admit_guess(struct limits *limits, const char *guid, unsigned most, int64_t now_ms, int64_t *ret_retry_after_s)
{
	*ret_retry_after_s = 0;
	if (limits->latched[LATCH_GUESSES])
		return STATUS_AGENT_LATCHED;
	make_room(limits, now_ms);
	struct user *user = get_user(limits, guid);
	if (!user)
		return STATUS_AGENT_INTERNAL;
	window_expire(&user->wrong, now_ms);
	window_expire(&limits->wrong, now_ms);
	int64_t hour = window_wait_s(&user->wrong, most, now_ms), minute = window_wait_s(&limits->wrong, limits->settings.wrong_per_minute, now_ms);
	enum status status = throttle(hour > minute ? hour : minute, ret_retry_after_s);
	user->wrong.pending += status == STATUS_OK;
	limits->wrong.pending += status == STATUS_OK;
	drop_if_idle(limits, guid);
	return status;
}

enum status limits_admit_guess(struct limits *limits, const char *guid, unsigned lockout_threshold, int64_t now_ms, int64_t *ret_retry_after_s)
{
	return admit_guess(limits, guid, guesses_of_user(limits, lockout_threshold), now_ms, ret_retry_after_s);
}

enum status limits_admit_proof(struct limits *limits, const char *guid, unsigned lockout_threshold, unsigned most, int64_t now_ms, int64_t *ret_retry_after_s)
{
	unsigned guesses = guesses_of_user(limits, lockout_threshold);
	return admit_guess(limits, guid, most && (!guesses || most < guesses) ? most : guesses, now_ms, ret_retry_after_s);
}

static void judge_guesses(struct limits *limits)
{
	const struct window *wrong = &limits->wrong;
	if (wrong->capacity && wrong->count == wrong->capacity && wrong->stamps[wrong->count - 1] - wrong->stamps[0] < wrong->span_ms)
		close_latch(limits, LATCH_GUESSES);
}

void limits_settle_guess(struct limits *limits, const char *guid, bool wrong, int64_t now_ms)
{
	struct user *user = *user_slot(limits, guid);
	settle(&limits->wrong, wrong, now_ms);
	judge_guesses(limits);
	if (user)
		settle(&user->wrong, wrong, now_ms);
	drop_if_idle(limits, guid);
}

void limits_restore_guess(struct limits *limits, const char *guid, bool latches, int64_t tried_at_ms)
{
	if (limits->users >= USERS_MAX)
		drop_oldest_user(limits);
	struct user *user = get_user(limits, guid);
	if (user)
		window_add(&user->wrong, tried_at_ms);
	if (!latches)
		return;
	window_add(&limits->wrong, tried_at_ms);
	judge_guesses(limits);
}

enum status limits_admit_lookup(struct limits *limits, int64_t now_ms, int64_t *ret_retry_after_s)
{
	window_expire(&limits->lookups, now_ms);
	enum status status = throttle(window_wait_s(&limits->lookups, limits->settings.lookups_per_minute, now_ms), ret_retry_after_s);
	if (status == STATUS_OK)
		window_add(&limits->lookups, now_ms);
	return status;
}

/* The latch ---------------------------------------------------------------------------------------------------------------------------- */

bool limits_latched(const struct limits *limits, enum latch latch)
{
	return limits->latched[latch];
}

void limits_on_latch(struct limits *limits, void (*latched)(enum latch latch, void *arg), void *arg)
{
	limits->on_latch = latched;
	limits->on_latch_arg = arg;
}

void limits_latch(struct limits *limits, enum latch latch)
{
	limits->latched[latch] = true;
}

void limits_resume(struct limits *limits, int64_t now_ms)
{
	limits->latched[LATCH_RESETS] = limits->latched[LATCH_GUESSES] = false;
	limits->passwords.count = limits->unlocks.count = limits->latch.count = limits->wrong.count = 0;
	for (unsigned i = 0; i < BUCKETS; i++) {
		for (struct user *user = limits->buckets[i]; user; user = user->next)
			user->hour.count = 0;
	}
	drop_idle_users(limits, now_ms);
}

/* Turns ------------------------------------------------------------------------------------------------------------------------------- */

static struct limits_turn **waiting_end(struct user *user, unsigned *ret_count)
{
	struct limits_turn **end = &user->waiting;
	for (*ret_count = 0; *end; end = &(*end)->next)
		++*ret_count;
	return end;
}

enum status limits_take_turn(struct limits *limits, const char *guid, struct limits_turn *turn, bool *ret_now)
{
	*ret_now = false;
	turn->next = NULL;
	turn->active = false;
	turn->guid[0] = '\0';
	struct user *user = get_user(limits, guid);
	if (!user)
		return STATUS_AGENT_INTERNAL;
	unsigned waiting;
	struct limits_turn **end = waiting_end(user, &waiting);
	if (user->active && waiting >= limits->settings.waiting_per_user)
		return STATUS_USER_BUSY;
	memcpy(turn->guid, user->guid, sizeof turn->guid);
	*ret_now = turn->active = !user->active;
	if (*ret_now)
		user->active = turn;
	else
		*end = turn;
	return STATUS_OK;
}

void limits_end_turn(struct limits *limits, struct limits_turn *turn)
{
	struct user *user = *user_slot(limits, turn->guid);
	if (!turn->guid[0] || !user)
		return;
	struct limits_turn *granted = NULL;
	if (user->active == turn) {
		granted = user->waiting;
		user->active = granted;
		if (granted) {
			user->waiting = granted->next;
			granted->next = NULL;
			granted->active = true;
		}
	} else {
		struct limits_turn **at = &user->waiting;
		while (*at && *at != turn)
			at = &(*at)->next;
		if (*at)
			*at = turn->next;
	}
	turn->active = false;
	turn->next = NULL;
	drop_if_idle(limits, turn->guid);
	turn->guid[0] = '\0';
	if (granted && granted->granted)
		granted->granted(granted->arg);
}
