#include "agent/control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/loop.h"
#include "base/secret.h"
#include "proto/jose.h"

#define PACKET_LIMIT 65536
#define CLIENTS 16
#define IDLE_S 300

struct client {
	struct control *control;
	struct client *next;
	struct event *reading;
	struct control_call *call;
	int fd;
};

/* Outlives its client where the answer comes later. */
struct control_call {
	struct client *client;
	struct control *control;
	struct control_call *next;
};

struct control {
	struct event_base *base;
	const struct control_command *commands;
	void *arg;
	int fd, reserve_fd;
	struct event *accepting;
	struct client *clients;
	struct control_call *calls;
	unsigned count;
};

static void close_client(struct client *client)
{
	struct client **link = &client->control->clients;
	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	client->control->count--;
	if (client->call)
		client->call->client = NULL;
	event_free(client->reading);
	close(client->fd);
	free(client);
}

void control_reply(struct control_call *call, json_t *take_answer)
{
	struct client *client = call->client;
	struct control_call **link = &call->control->calls;
	while (*link != call)
		link = &(*link)->next;
	*link = call->next;
	free(call);
	char *text = client && take_answer ? json_dumps(take_answer, JSON_COMPACT) : NULL;
	json_decref(take_answer);
	if (!client)
		return;
	client->call = NULL;
	size_t size = text ? strlen(text) : 0;
	static const char too_long[] = "{\"error\":\"agent.internal\",\"text\":\"the answer is longer than a packet\"}";
	bool fits = size > 0 && size <= PACKET_LIMIT;
	bool sent = send(client->fd, fits ? text : too_long, fits ? size : sizeof too_long - 1, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
	if (text)
		wipe(text, size);
	free(text);
	if (!sent)
		shutdown(client->fd, SHUT_RDWR); /* read_one sees the end and closes */
}

void control_refuse(struct control_call *call, enum status status, const char *text)
{
	control_reply(call, json_pack("{s:s,s:s}", "error", status_code(status), "text", text));
}

static void run_command(struct client *client, const json_t *input)
{
	struct control *control = client->control;
	struct control_call *call = calloc(1, sizeof *call);
	if (!call)
		return;
	*call = (struct control_call){ client, control, control->calls };
	control->calls = client->call = call;
	const char *name = json_string_value(json_object_get(input, "command"));
	for (const struct control_command *command = control->commands; name && command->name; command++)
		if (strcmp(command->name, name) == 0) {
			command->run(call, input, control->arg);
			return;
		}
	control_refuse(call, STATUS_LOCAL_INPUT, "no such command");
}

static void read_one(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;
	static char packet[PACKET_LIMIT + 1];
	ssize_t size = what & EV_TIMEOUT ? 0 : recv(fd, packet, sizeof packet, MSG_DONTWAIT);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	bool good = size > 0 && size <= PACKET_LIMIT && !client->call;
	json_t *input = good ? jose_json_parse(bytes_of(packet, size)) : NULL;
	wipe(packet, size > 0 ? size : 0); /* it may have held a ticket */
	if (json_is_object(input))
		run_command(client, input);
	else
		close_client(client);
	json_decref(input);
}

static void accept_one(evutil_socket_t listening, short what, void *arg)
{
	struct control *control = arg;
	int fd = loop_accept(listening, &control->reserve_fd);
	struct client *client = fd >= 0 && control->count < CLIENTS ? calloc(1, sizeof *client) : NULL;
	struct event *reading = client ? event_new(control->base, fd, EV_READ | EV_PERSIST, read_one, client) : NULL;
	if (!reading) {
		free(client);
		if (fd >= 0)
			close(fd);
		return;
	}
	*client = (struct client){ .control = control, .next = control->clients, .reading = reading, .fd = fd };
	control->clients = client;
	control->count++;
	event_add(reading, &(struct timeval){ IDLE_S, 0 });
}

enum status control_new(struct event_base *base, int take_fd, const struct control_command *commands, void *arg, struct control **ret_control)
{
	struct control *control = calloc(1, sizeof *control);
	if (!control)
		return STATUS_AGENT_INTERNAL;
	*control = (struct control){ .base = base, .commands = commands, .arg = arg, .fd = take_fd, .reserve_fd = loop_reserve_fd() };
	evutil_make_socket_nonblocking(take_fd);
	control->accepting = event_new(base, take_fd, EV_READ | EV_PERSIST, accept_one, control);
	if (control->accepting && event_add(control->accepting, NULL) == 0) {
		*ret_control = control;
		return STATUS_OK;
	}
	control_free(control);
	return STATUS_AGENT_INTERNAL;
}

void control_free(struct control *control)
{
	if (!control)
		return;
	while (control->clients)
		close_client(control->clients);
	for (struct control_call *call = control->calls, *next; call; call = next) {
		next = call->next;
		free(call);
	}
	if (control->accepting)
		event_free(control->accepting);
	close(control->fd);
	if (control->reserve_fd >= 0)
		close(control->reserve_fd);
	free(control);
}
