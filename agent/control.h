/* control: the socket on which writebackctl talks to the agent: SOCK_SEQPACKET, one JSON object a packet each way, at most 64 KiB, up to 16 clients,
 * one command of each at a time. Who may connect is the socket's mode. Knows commands by a table; what they do is the table's. On the loop's thread. */
#ifndef AGENT_CONTROL_H
#define AGENT_CONTROL_H

#include <event2/event.h>
#include <jansson.h>

#include "base/status.h"

struct control;
struct control_call;
/* Answers by control_reply, now or later, exactly once. `input` is borrowed for the call. */
struct control_command {
	const char *name;
	void (*run)(struct control_call *call, const json_t *input, void *arg);
};

/* `commands` ends with a row whose name is NULL. `take_fd` listens already. */
enum status control_new(struct event_base *base, int take_fd, const struct control_command *commands, void *arg, struct control **ret_control) MUST_USE;
void control_free(struct control *control);
/* Takes the object; nothing is sent where the client has gone. */
void control_reply(struct control_call *call, json_t *take_answer);
/* {"error": code, "text": …} */
void control_refuse(struct control_call *call, enum status status, const char *text);

#endif
