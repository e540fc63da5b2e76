#include "base/loop.h"

#include <errno.h>
#include <event2/thread.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/notify.h"

#define RELOAD_PAUSE_MS 1000
#define STATUS_TEXT_LIMIT 500

struct loop {
	struct event_base *base;
	struct loop_callbacks callbacks;
	struct event *terminate, *interrupt, *hangup;
	struct event *reload_pause;   /* pending: a reload has just been done */
	struct event *probe;
	struct notify *notify;
	struct event *watchdog;       /* NULL where systemd does not ask for one */
	int64_t probe_us, probe_due_us, longest_gap_us;
	bool reload_again, stopping, running;
};

static void use_threads(void)
{
	evthread_use_pthreads();
}

static struct timeval interval(int64_t us)
{
	return (struct timeval){ .tv_sec = us / 1000000, .tv_usec = us % 1000000 };
}

static void on_stop_signal(evutil_socket_t signal_number, short what, void *arg)
{
	struct loop *loop = arg;
	if (loop->stopping || loop->callbacks.stop == NULL) {
		loop_end(loop);
		return;
	}
	loop->stopping = true;
	loop->callbacks.stop(loop->callbacks.arg);
}

static void reload(struct loop *loop)
{
	struct timeval pause = interval(RELOAD_PAUSE_MS * 1000);
	loop->reload_again = false;
	evtimer_add(loop->reload_pause, &pause);
	if (loop->callbacks.reload != NULL)
		loop->callbacks.reload(loop->callbacks.arg);
}

static void on_reload_signal(evutil_socket_t signal_number, short what, void *arg)
{
	struct loop *loop = arg;
	if (evtimer_pending(loop->reload_pause, NULL))
		loop->reload_again = true;
	else
		reload(loop);
}

static void on_reload_pause(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	if (loop->reload_again)
		reload(loop);
}

static void arm_probe(struct loop *loop)
{
	struct timeval period = interval(loop->probe_us);
	/* Else libevent counts from the start of this turn, and the probe would come early by what the turn took. */
	event_base_update_cache_time(loop->base);
	loop->probe_due_us = clock_monotonic_us() + loop->probe_us;
	evtimer_add(loop->probe, &period);
}

static void on_probe(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	int64_t late = clock_monotonic_us() - loop->probe_due_us;
	if (late > loop->longest_gap_us)
		loop->longest_gap_us = late;
	arm_probe(loop);
}

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	notify_alive(loop->notify);
}

static bool add_signals(struct loop *loop)
{
	loop->terminate = evsignal_new(loop->base, SIGTERM, on_stop_signal, loop);
	loop->interrupt = evsignal_new(loop->base, SIGINT, on_stop_signal, loop);
	loop->hangup = evsignal_new(loop->base, SIGHUP, on_reload_signal, loop);
	return loop->terminate != NULL && loop->interrupt != NULL && loop->hangup != NULL && evsignal_add(loop->terminate, NULL) == 0 &&
	       evsignal_add(loop->interrupt, NULL) == 0 && evsignal_add(loop->hangup, NULL) == 0;
}

static bool add_watchdog(struct loop *loop)
{
	uint64_t limit_us = 0;
	if (sd_watchdog_enabled(0, &limit_us) <= 0)
		return true;
	struct timeval half = interval((int64_t)(limit_us / 2));
	loop->watchdog = event_new(loop->base, -1, EV_PERSIST, on_watchdog, loop);
	return loop->watchdog != NULL && event_add(loop->watchdog, &half) == 0;
}

static struct event_base *new_base(void)
{
	struct event_config *config = event_config_new();
	if (config == NULL)
		return NULL;
	event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
	struct event_base *base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

enum status loop_new(const struct loop_callbacks *callbacks, unsigned probe_ms, struct loop **ret_loop)
{
	static pthread_once_t threads_once = PTHREAD_ONCE_INIT;
	pthread_once(&threads_once, use_threads);
	signal(SIGPIPE, SIG_IGN);

	struct loop *loop = calloc(1, sizeof *loop);
	if (loop == NULL)
		return STATUS_AGENT_INTERNAL;
	loop->probe_us = (int64_t)(probe_ms == 0 ? 1000 : probe_ms) * 1000;
	loop->base = new_base();
	bool made = loop->base != NULL && (loop->notify = notify_new(loop->base)) != NULL && (loop->probe = evtimer_new(loop->base, on_probe, loop)) != NULL &&
	            (loop->reload_pause = evtimer_new(loop->base, on_reload_pause, loop)) != NULL && add_watchdog(loop);
	/* Without callbacks signals are left alone: libevent serves them for one loop of a process only. */
	if (made && callbacks != NULL) {
		loop->callbacks = *callbacks;
		made = add_signals(loop);
	}
	if (!made) {
		loop_free(loop);
		return STATUS_LOCAL_SYSTEM;
	}
	*ret_loop = loop;
	return STATUS_OK;
}

void loop_free(struct loop *loop)
{
	if (loop == NULL)
		return;
	struct event *events[] = { loop->terminate, loop->interrupt, loop->hangup, loop->reload_pause, loop->probe, loop->watchdog };
	for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
		if (events[i] != NULL)
			event_free(events[i]);
	notify_free(loop->notify);
	if (loop->base != NULL) {
		/* A connection that was freed in mid-flood lives until its deferred callback has had its turn: libevent holds it for that. */
		event_base_loop(loop->base, EVLOOP_NONBLOCK);
		event_base_free(loop->base);
	}
	free(loop);
}

struct event_base *loop_base(struct loop *loop)
{
	return loop->base;
}

void loop_run(struct loop *loop)
{
	loop->running = true;
	arm_probe(loop);
	event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
	loop->running = false;
	evtimer_del(loop->probe);
}

void loop_end(struct loop *loop)
{
	event_base_loopbreak(loop->base);
}

int64_t loop_longest_gap_us(const struct loop *loop)
{
	/* Also what holds the loop up right now. */
	int64_t late = loop->running ? clock_monotonic_us() - loop->probe_due_us : 0;
	return late > loop->longest_gap_us ? late : loop->longest_gap_us;
}

void loop_reset_gap(struct loop *loop)
{
	loop->longest_gap_us = 0;
	if (loop->running)
		arm_probe(loop);
}

int loop_reserve_fd(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

int loop_accept(int listening, int *reserve_fd)
{
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE) && *reserve_fd >= 0) {
		close(*reserve_fd);
		int refused = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (refused >= 0)
			close(refused);
		*reserve_fd = -1;
	}
	if (*reserve_fd < 0)
		*reserve_fd = loop_reserve_fd();
	return fd;
}

/* A status is one line; what stands behind a newline would be read as further assignments. */
static int line_size(const char *text)
{
	return text == NULL ? 0 : (int)strnlen(text, strcspn(text, "\n") < STATUS_TEXT_LIMIT ? strcspn(text, "\n") : STATUS_TEXT_LIMIT);
}

void loop_notify_ready(struct loop *loop, const char *status_text)
{
	char message[STATUS_TEXT_LIMIT + 32];
	snprintf(message, sizeof message, "READY=1\nSTATUS=%.*s", line_size(status_text), status_text == NULL ? "" : status_text);
	notify_state(loop->notify, message);
}

void loop_notify_status(struct loop *loop, const char *status_text)
{
	char message[STATUS_TEXT_LIMIT + 32];
	snprintf(message, sizeof message, "STATUS=%.*s", line_size(status_text), status_text == NULL ? "" : status_text);
	notify_status(loop->notify, message);
}

void loop_notify_reloading(struct loop *loop)
{
	char message[64];
	snprintf(message, sizeof message, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_monotonic_us());
	notify_state(loop->notify, message);
}

void loop_notify_stopping(struct loop *loop)
{
	notify_state(loop->notify, "STOPPING=1\nSTATUS=Stopping");
}
