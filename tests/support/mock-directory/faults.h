/* faults: what goes wrong on demand. Kept in order; the first that fits an operation is used and counted down. */
#ifndef MOCK_DIRECTORY_FAULTS_H
#define MOCK_DIRECTORY_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

enum fault_on { FAULT_ON_ANY, FAULT_ON_BIND, FAULT_ON_SEARCH, FAULT_ON_MODIFY, FAULT_ON_EXTENDED, FAULT_ON_CONNECT };
enum fault_action {
	FAULT_RESULT,     /* an answer with this code; nothing is applied */
	FAULT_DELAY,      /* the operation is done later; those behind it are not held up */
	FAULT_STALL,      /* from here on the connection is neither read nor answered, as with a cut cable */
	FAULT_CUT_BEFORE, /* closed, nothing applied */
	FAULT_CUT_AFTER,  /* applied, then closed without an answer */
	FAULT_REFERRAL,
	FAULT_GARBAGE,    /* octets that are no LDAP */
	FAULT_DROP,       /* nothing applied, no answer, the connection lives on */
	FAULT_SWALLOW,    /* applied, no answer, the connection lives on */
};
struct fault {
	enum fault_on on;
	enum fault_action action;
	char *user, *text, *url;
	long left;        /* -1: for ever */
	int code;
	long delay_ms;
	struct fault *next;
};
struct faults {
	struct fault *first;
};

/* `words`: "on=modify", "user=alice", "count=3", "result=51", …. NULL and a sentence where they are not understood. */
struct fault *faults_add(struct faults *faults, char **words, size_t count, const char **ret_why);
/* `concerns` is asked only about faults with user=. The copy borrows the fault's texts until the next use of `faults`. */
bool faults_take(struct faults *faults, enum fault_on on, bool (*concerns)(const char *user, void *arg), void *arg, struct fault *ret_fault);
void faults_clear(struct faults *faults);

#endif
