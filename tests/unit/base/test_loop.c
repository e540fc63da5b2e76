#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"

struct record {
	struct loop *loop;
	unsigned stops, reloads;
	bool end_on_stop;
};

static void on_stop(void *arg)
{
	struct record *record = arg;
	record->stops++;
	if (record->end_on_stop)
		loop_end(record->loop);
}

static void on_reload(void *arg)
{
	struct record *record = arg;
	record->reloads++;
}

static void start(struct record *record, unsigned probe_ms)
{
	*record = (struct record){ 0 };
	struct loop_callbacks callbacks = { .stop = on_stop, .reload = on_reload, .arg = record };
	assert_int_equal(loop_new(&callbacks, probe_ms, &record->loop), STATUS_OK);
}

static void raise_term(evutil_socket_t fd, short what, void *arg) { raise(SIGTERM); }
static void raise_hup(evutil_socket_t fd, short what, void *arg) { raise(SIGHUP); }
static void end(evutil_socket_t fd, short what, void *arg) { loop_end(arg); }

static void after(struct loop *loop, int ms, event_callback_fn callback, void *arg)
{
	struct timeval interval = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
	assert_int_equal(event_base_once(loop_base(loop), -1, EV_TIMEOUT, callback, arg, &interval), 0);
}

static void first_signal_asks_to_stop(void **state)
{
	struct record record;
	start(&record, 1000);
	record.end_on_stop = true;
	after(record.loop, 0, raise_term, NULL);
	loop_run(record.loop);
	assert_int_equal(record.stops, 1);
	loop_free(record.loop);
}

static void second_signal_ends_at_once(void **state)
{
	struct record record;
	start(&record, 1000);
	after(record.loop, 0, raise_term, NULL);
	after(record.loop, 20, raise_term, NULL);
	loop_run(record.loop);
	assert_int_equal(record.stops, 1);
	loop_free(record.loop);
}

static void reload_storms_are_coalesced(void **state)
{
	struct record record;
	start(&record, 1000);
	for (int ms = 0; ms < 200; ms += 10)
		after(record.loop, ms, raise_hup, NULL);
	after(record.loop, 1300, end, record.loop);
	loop_run(record.loop);
	/* One at once, one for all the others a second later. */
	assert_int_equal(record.reloads, 2);
	loop_free(record.loop);
}

static void hold_up(evutil_socket_t fd, short what, void *arg)
{
	int64_t until = clock_monotonic_us() + 60000;
	while (clock_monotonic_us() < until)
		continue;
}

static void gap_is_measured(void **state)
{
	struct record record;
	start(&record, 10);
	after(record.loop, 30, hold_up, NULL);
	after(record.loop, 150, end, record.loop);
	loop_run(record.loop);
	assert_in_range(loop_longest_gap_us(record.loop), 45000, 5000000);
	loop_reset_gap(record.loop);
	assert_int_equal(loop_longest_gap_us(record.loop), 0);
	loop_free(record.loop);
}

static void works_without_callbacks(void **state)
{
	struct loop *loop;
	assert_int_equal(loop_new(NULL, 0, &loop), STATUS_OK);
	after(loop, 0, end, loop);
	loop_run(loop);
	loop_free(loop);
	loop_free(NULL);
}

static int notify_socket(char *path)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	sprintf(path, "/tmp/test_loop.%d", (int)getpid());
	strcpy(address.sun_path, path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	setenv("NOTIFY_SOCKET", path, 1);
	return fd;
}

static const char *received(int fd)
{
	static char text[4096];
	ssize_t size = recv(fd, text, sizeof text - 1, 0);
	text[size < 0 ? 0 : size] = '\0';
	return text;
}

static void systemd_is_told(void **state)
{
	char path[64];
	int fd = notify_socket(path);
	setenv("WATCHDOG_USEC", "40000", 1);
	struct loop *loop;
	assert_int_equal(loop_new(NULL, 1000, &loop), STATUS_OK);
	loop_notify_ready(loop, "all\nWATCHDOG=trigger");
	assert_string_equal(received(fd), "READY=1\nSTATUS=all");
	loop_notify_status(loop, NULL);
	assert_string_equal(received(fd), "STATUS=");
	loop_notify_reloading(loop);
	assert_int_equal(strncmp(received(fd), "RELOADING=1\nMONOTONIC_USEC=", 27), 0);
	loop_notify_stopping(loop);
	assert_int_equal(strncmp(received(fd), "STOPPING=1", 10), 0);
	assert_string_equal(received(fd), "");
	after(loop, 70, end, loop);
	loop_run(loop);
	unsigned fed = 0;
	while (strcmp(received(fd), "WATCHDOG=1") == 0)
		fed++;
	assert_in_range(fed, 2, 4);
	loop_free(loop);
	close(fd);
	unlink(path);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
}

static void run_for(struct loop *loop, unsigned ms)
{
	after(loop, ms, end, loop);
	loop_run(loop);
}

/* A flood of texts is one a second, and the last of them counts. */
static void texts_are_told_now_and_then(void **state)
{
	char path[64], text[32];
	int fd = notify_socket(path);
	struct loop *loop;
	assert_int_equal(loop_new(NULL, 1000, &loop), STATUS_OK);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(text, sizeof text, "%u", i);
		loop_notify_status(loop, text);
	}
	assert_string_equal(received(fd), "STATUS=0");
	assert_string_equal(received(fd), "");
	run_for(loop, 1100);
	assert_string_equal(received(fd), "STATUS=999");
	assert_string_equal(received(fd), "");
	loop_free(loop);
	close(fd);
	unlink(path);
	unsetenv("NOTIFY_SOCKET");
}

/* PID 1 stands still: nothing waits for it, and what it must hear it hears when it goes on. */
static void nobody_waits_for_systemd(void **state)
{
	char path[64], text[4096];
	int fd = notify_socket(path);
	struct loop *loop;
	assert_int_equal(loop_new(NULL, 1000, &loop), STATUS_OK);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	strcpy(address.sun_path, path);
	int other = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	while (sendto(other, "full", 4, MSG_DONTWAIT, (struct sockaddr *)&address, sizeof address) == 4)
		;
	int64_t began = clock_monotonic_us();
	loop_notify_status(loop, "late");
	loop_notify_reloading(loop);
	loop_notify_ready(loop, "again");
	assert_true(clock_monotonic_us() - began < 500000);
	while (strcmp(received(fd), "full") == 0)
		;
	run_for(loop, 300);
	snprintf(text, sizeof text, "%s", received(fd));
	assert_int_equal(strncmp(text, "RELOADING=1\n", 12), 0);
	assert_string_equal(received(fd), "READY=1\nSTATUS=again");
	loop_free(loop);
	close(other);
	close(fd);
	unlink(path);
	unsetenv("NOTIFY_SOCKET");
}

static void an_abstract_socket_is_told(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char name[64];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int size = snprintf(name, sizeof name, "@test_loop.%d", (int)getpid());
	memcpy(address.sun_path + 1, name + 1, (size_t)size - 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)size)), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	struct loop *loop;
	assert_int_equal(loop_new(NULL, 1000, &loop), STATUS_OK);
	loop_notify_ready(loop, "all");
	assert_string_equal(received(fd), "READY=1\nSTATUS=all");
	loop_free(loop);
	close(fd);
	unsetenv("NOTIFY_SOCKET");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_signal_asks_to_stop), cmocka_unit_test(second_signal_ends_at_once), cmocka_unit_test(reload_storms_are_coalesced),
		cmocka_unit_test(gap_is_measured), cmocka_unit_test(works_without_callbacks), cmocka_unit_test(systemd_is_told), cmocka_unit_test(texts_are_told_now_and_then), cmocka_unit_test(nobody_waits_for_systemd), cmocka_unit_test(an_abstract_socket_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
