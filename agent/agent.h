/* agent: writebackd's parts joined: which session feeds which request, what is repeated, what the notification says, how it all ends.
 * The struct is shared by main.c, agent.c, agent_describe.c, commands.c and those of check_user.h; nobody else includes this. */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "agent/control.h"
#include "agent/link.h"
#include "agent/outbox.h"
#include "agent/request.h"
#include "agent/session.h"
#include "base/loop.h"

struct agent {
	const char *config_file;
	struct loop *loop;
	struct settings *settings;      /* as last loaded */
	struct settings *first_settings;/* as at the start: directories borrow from it */
	struct identity identity;
	int lock_fd;                    /* of the state directory; -1: none */
	struct enrolment enrolment;     /* begun and not finished; issuer NULL: none */
	struct journal *journal;
	struct limits *limits;
	struct realms *realms;
	struct requests *requests;
	struct outbox *outbox;
	struct link *link;
	struct control *control;
	struct session *sessions[PACKET_ENDPOINTS];
	struct {
		bool known;
		char url[256], text[384];   /* as the channel's program last said */
		char certificate[512];      /* of the service: for whom, by whom, until when; "": not up */
		char told[256];             /* the last loss that was logged as news */
	} endpoints[PACKET_ENDPOINTS];
	struct hello_directory *hello_directories;
	struct event *minute, *repeating, *watching;
	int64_t started_us, stopping_us, idle_us;
	int expiry_warned;
	char *restart_told;             /* the keys that need a restart, as logged last; NULL: none */
	unsigned down_lines;            /* of the log, spent on what the channel's program says */
	int64_t down_us;
	bool ready_told, stopping;
};

/* Everything but the sockets. On failure `why` says it in a sentence. */
enum status agent_open(struct agent *agent, char *why, size_t capacity) MUST_USE;
/* Takes both listening sockets. */
enum status agent_listen(struct agent *agent, int take_channel_fd, int take_control_fd) MUST_USE;
void agent_close(struct agent *agent);
/* For struct loop_callbacks. */
void agent_stop(void *arg);
void agent_reload(void *arg);

/* Sessions that talk, and endpoints that the channel's program has named. */
unsigned agent_sessions_ready(const struct agent *agent);
unsigned agent_endpoints(const struct agent *agent);
/* All of it on one line: what systemd shows as the status. */
void agent_describe(const struct agent *agent, char *text, size_t capacity);
/* Ready, and what is missing: malformed nowhere, "" where nothing is. */
bool agent_is_ready(const struct agent *agent, char *why, size_t capacity);
/* A directory's health in words, with the time of the next try where it is down. */
void agent_describe_directory(const struct realm *realm, char *text, size_t capacity);
/* A new identity is in force: sessions begin anew. */
void agent_identity_changed(struct agent *agent);

extern const struct control_command agent_commands[];
/* For commands: the command line was wrong, not the agent, which is an exit status of its own. */
void agent_refuse_usage(struct control_call *call, const char *text);
void agent_refuse_directory(const struct agent *agent, struct control_call *call, const char *name);
/* check_user.c: the commands check-user and explain-user. */
void agent_check_user(struct control_call *call, const json_t *input, void *arg);
void agent_explain_user(struct control_call *call, const json_t *input, void *arg);

#endif
