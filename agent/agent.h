/* agent: writebackd's parts joined: which session feeds which request, what is repeated, what the notification says, how it all ends.
 * The struct is shared by main.c, agent.c, agent_describe.c, reload.c, rotation.c, commands.c and those of check_user.h; nobody else includes this. */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "agent/control.h"
#include "agent/link.h"
#include "agent/outbox.h"
#include "agent/request.h"
#include "agent/session.h"
#include "base/log.h"
#include "base/loop.h"

struct agent {
	const char *config_file;
	struct loop *loop;
	struct settings *settings;      /* as last loaded */
	struct settings *first_settings;/* as at the start: directories borrow from it */
	struct identity identity;
	char identity_fault[512];       /* why there is none although there was; "": there is, or never was */
	struct worker *writer;          /* of its files */
	int lock_fd;                    /* of the state directory; -1: none */
	struct enrolment enrolment;     /* begun and not finished; issuer NULL: none */
	struct control_call *enrolling; /* is being written; NULL: none */
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
	struct event *minute, *repeating, *forgetting, *watching;
	int64_t started_us, stopping_us, idle_us;
	uint32_t process;               /* random: which process it is, of those that a copy of its state may have started too */
	int expiry_warned;
	struct {                        /* of the agent's own keys: rotation.c */
		struct event *deadline; /* of an administrator's wait */
		struct control_call *call; /* who waits; NULL: nobody */
		char old_signing[JOSE_KID_SIZE], old_decryption[JOSE_KID_SIZE];
		unsigned asked;         /* bit 1 << endpoint: told the service, not answered */
		int64_t begun_s, refused_s, warned_s; /* 0: not */
		char refused_why[128];
	} rotation;
	int64_t config_ms;              /* when the settings in force were loaded */
	char config_refused[512];       /* why a file that came later was refused; "": none */
	char *restart_told;             /* the keys that need a restart, as logged last; NULL: none */
	struct log_budget down_lines, link_lines; /* writebackd-channel is not trusted: it may come, go and tell of losses without end */
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

/* Sessions that talk. */
unsigned agent_sessions_ready(const struct agent *agent);
/* All of it on one line: what systemd shows as the status. */
void agent_describe(const struct agent *agent, char *text, size_t capacity);
/* Ready, and what is missing: malformed nowhere, "" where nothing is. */
bool agent_is_ready(const struct agent *agent, char *why, size_t capacity);
/* Why there is no identity, and what to do. */
void agent_describe_unenrolled(const struct agent *agent, char *text, size_t capacity);
/* A directory's health in words, with the time of the next try where it is down. */
void agent_describe_directory(const struct realm *realm, char *text, size_t capacity);
/* Ends all channels, and the program that holds them connects again: what was not taken in is delivered again. */
void agent_begin_anew(struct agent *agent);
/* A new identity is in force: sessions begin anew. */
void agent_identity_changed(struct agent *agent);

/* rotation.c: the agent's keys are replaced where they are old, or an administrator asks for it. */
enum status agent_open_rotation(struct agent *agent) MUST_USE;
void agent_close_rotation(struct agent *agent);
/* Another identity is in force: what was under way for the one before is forgotten. */
void agent_reset_rotation(struct agent *agent);
void agent_rotation_ready(struct agent *agent, struct session *session);
void agent_rotation_answered(struct agent *agent, struct session *session, const struct rekeyed *rekeyed);
void agent_rotation_welcomed(struct agent *agent);
/* The channel has closed. */
void agent_rotation_closed(struct agent *agent, struct session *session, unsigned close_code, const char *reason);
void agent_rotation_minute(struct agent *agent);
/* "": nothing to say; else in a sentence how far a rotation has come. */
void agent_describe_rotation(const struct agent *agent, char *text, size_t capacity);
/* The command rotate-keys. */
void agent_rotate_keys(struct control_call *call, const json_t *input, void *arg);

/* The journal's numbers that keep the latches. */
extern const char *const agent_latch_numbers[LATCHES];
extern const struct control_command agent_commands[];
/* For commands: the command line was wrong, not the agent, which is an exit status of its own. */
void agent_refuse_usage(struct control_call *call, const char *text);
void agent_refuse_directory(const struct agent *agent, struct control_call *call, const char *name);
/* check_user.c: the commands check-user and explain-user. */
void agent_check_user(struct control_call *call, const json_t *input, void *arg);
void agent_explain_user(struct control_call *call, const json_t *input, void *arg);

#endif
