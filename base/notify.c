#include "base/notify.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

enum { MESSAGE_SIZE = 640, STATES_MAX = 8, STATUS_PAUSE_US = 1000000, AGAIN_US = 200000 };

struct notify {
	struct event *timer;
	int fd;
	char states[STATES_MAX][MESSAGE_SIZE];
	unsigned state_count;
	char status[MESSAGE_SIZE];   /* "": none waits */
	int64_t status_us;           /* when the last one was sent */
};

/* $NOTIFY_SOCKET: a path, or '@' and an abstract name. */
static bool address(struct sockaddr_un *ret_address, socklen_t *ret_size)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t size = path != NULL ? strlen(path) : 0;
	if (size < 2 || (path[0] != '/' && path[0] != '@') || size >= sizeof ret_address->sun_path)
		return false;
	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret_address->sun_path, path, size);
	if (path[0] == '@')
		ret_address->sun_path[0] = '\0';
	*ret_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (path[0] == '/'));
	return true;
}

/* False where it should be tried again; what nobody listens to is as good as sent. */
static bool send_now(struct notify *notify, const char *message)
{
	struct sockaddr_un to;
	socklen_t size;
	if (!address(&to, &size))
		return true;
	if (notify->fd < 0)
		notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (notify->fd < 0)
		return false;
	ssize_t sent = sendto(notify->fd, message, strlen(message), MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&to, size);
	return sent >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS && errno != EINTR);
}

static void drop_state(struct notify *notify)
{
	notify->state_count--;
	memmove(notify->states[0], notify->states[1], notify->state_count * sizeof notify->states[0]);
}

static void plan(struct notify *notify, int64_t us)
{
	struct timeval pause = { us / 1000000, us % 1000000 };
	evtimer_add(notify->timer, &pause);
}

static void flush(struct notify *notify)
{
	int64_t now = clock_monotonic_us(), since_us = now - notify->status_us;
	while (notify->state_count > 0 && send_now(notify, notify->states[0]))
		drop_state(notify);
	if (notify->state_count > 0) {
		plan(notify, AGAIN_US);
		return;
	}
	if (!notify->status[0])
		return;
	if (since_us < STATUS_PAUSE_US) {
		plan(notify, STATUS_PAUSE_US - since_us);
		return;
	}
	notify->status_us = now;
	if (send_now(notify, notify->status))
		notify->status[0] = '\0';
	else
		plan(notify, STATUS_PAUSE_US);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	flush(arg);
}

struct notify *notify_new(struct event_base *base)
{
	struct notify *notify = calloc(1, sizeof *notify);
	if (notify == NULL)
		return NULL;
	notify->fd = -1;
	notify->status_us = clock_monotonic_us() - STATUS_PAUSE_US;
	notify->timer = evtimer_new(base, on_timer, notify);
	if (notify->timer == NULL) {
		free(notify);
		return NULL;
	}
	return notify;
}

void notify_free(struct notify *notify)
{
	if (notify == NULL)
		return;
	event_free(notify->timer);
	if (notify->fd >= 0)
		close(notify->fd);
	free(notify);
}

void notify_state(struct notify *notify, const char *message)
{
	if (notify->state_count == STATES_MAX)
		drop_state(notify);
	snprintf(notify->states[notify->state_count++], MESSAGE_SIZE, "%s", message);
	/* The text that it brings is younger than the one that waits. */
	if (strstr(message, "\nSTATUS=") != NULL)
		notify->status[0] = '\0';
	flush(notify);
}

void notify_status(struct notify *notify, const char *message)
{
	snprintf(notify->status, sizeof notify->status, "%s", message);
	flush(notify);
}

void notify_alive(struct notify *notify)
{
	(void)send_now(notify, "WATCHDOG=1");
}
