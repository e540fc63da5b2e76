/* check_user: what the commands check-user and explain-user share: one user, found, judged by the same functions that a request meets, and the rights on him.
 * check_user.c asks and answers, user_rights.c has the rights' rows, explain.c the sentences. */
#ifndef AGENT_CHECK_USER_H
#define AGENT_CHECK_USER_H

#include "agent/agent.h"

struct user_check {
	struct agent *agent;
	struct control_call *call;
	bool explain;                          /* the answer is explain-user's */
	struct realm *realm;
	struct located *located;
	const struct directory_rights *rights; /* NULL: they could not be read */
	json_t *rows;
	enum status status;                    /* of the first question that a reset would fail at */
	char text[512];
	bool incomplete;                       /* a right is missing, also one that a reset would not fail at */
	/* Which directory has him is not known: they are asked one after the other. */
	char *user, *domain;                   /* domain: of the name, NULL: it has none */
	size_t next;                           /* of those still to be asked */
	bool every;                            /* they are being asked so */
	enum status missed;                    /* of one that could not say */
	struct realm *missed_realm;
};

/* The row, borrowed. A status other than OK is a "no", and the first of them is the verdict; text may begin with "yes: " or "no: ". */
json_t *check_add_row(struct user_check *check, const char *question, enum status status, const char *text);
/* A row for each right of the agent's account: "answer" is yes, no or unknown; "grant" has the commands that would give it. */
void check_add_rights(struct user_check *check);
/* When the password may be set next; INT64_MIN: at once, as far as is known. By a reset the minimum age counts where the server enforces it on resets; by the user's own change always. */
int64_t check_possible_s(const struct user_check *check, bool own_change);
/* The protected groups that he is in, by name, with commas between; "" where he is in none. */
void check_protected_groups(const struct account *account, char *text, size_t capacity);
/* The answer of explain-user: {"ok","code","text",…,"rows":[{"topic","text"}],"facts":{…}}. */
json_t *explain_user(const struct user_check *check);

#endif
