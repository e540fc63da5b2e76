/* crash: points at which a test lets a process die by SIGKILL, to see what is left of a request, or of new keys, wherever it ends. Only in a build with -Dcrash_points=true; else a point is
 * nothing at all.
 *
 * The environment variable WRITEBACK_CRASH_FILE names a file; while that says "NAME 3 kill", the third passing of the point NAME removes it and kills. So the test sees that the
 * process died there, and what is started again runs on. With "NAME 1 stop" the process stops there by SIGSTOP instead, until somebody lets it go on. */
#ifndef BASE_CRASH_H
#define BASE_CRASH_H

/* Number, process, name: what has just been done there, and what comes next has not. tests/faults reads this table. */
enum crash_point {
	/* writebackd */
	CRASH_RECEIVED = 1,               /* the frame is taken from the channel's socket | verified */
	CRASH_VERIFIED = 2,               /* the signature is good | its claims judged */
	CRASH_ADMITTED = 3,               /* taken in | anything asked of the directory */
	CRASH_SEARCHED = 4,               /* the user was read | in scope? */
	CRASH_DECRYPTED = 5,              /* the password is known | the rules */
	CRASH_INTENT_GIVEN = 6,           /* the intent is with the journal's thread | on disk */
	CRASH_INTENT_RECORDED = 7,        /* on disk | the user read once more */
	CRASH_RECHECKED = 8,              /* judged once more | the write */
	CRASH_MODIFY_MADE = 9,            /* the modify is in our own buffer | with the kernel */
	CRASH_MODIFY_SENT = 10,           /* with the kernel | answered; a second passing is the second write's */
	CRASH_MODIFY_ANSWERED = 11,       /* its answer was read | the outcome */
	CRASH_OUTCOME_GIVEN = 12,         /* the outcome is with the journal's thread | on disk */
	CRASH_OUTCOME_RECORDED = 13,      /* on disk | signed */
	CRASH_RESULT_SIGNED = 14,         /* signed | with the channel's socket */
	CRASH_RESULT_SENT = 15,           /* with the channel's socket | acknowledged */
	CRASH_ACKNOWLEDGED = 16,          /* the acknowledgement was read | the journal told */
	CRASH_ACKNOWLEDGEMENT_GIVEN = 17, /* the journal told | on disk */
	CRASH_SETTLING_BEGUN = 18,        /* an answer was lost | told, and a second server asked */
	CRASH_SECOND_INTENT_GIVEN = 19,   /* the second server's intent is with the journal's thread | on disk */
	CRASH_SECOND_INTENT_RECORDED = 20,/* on disk | the user read once more there */
	CRASH_SECOND_MODIFY_MADE = 21,    /* the second modify is in our own buffer | with the kernel */
	CRASH_SECOND_MODIFY_ANSWERED = 22,/* its answer was read | the outcome */
	CRASH_SETTLING_RESTORED = 23,     /* found in the journal at the start | read */
	CRASH_SETTLING_READ = 24,         /* the server that was written to was read | judged */
	CRASH_SETTLED = 25,               /* judged | the outcome */
	CRASH_KEYS_MADE = 26,             /* the new keys' files are on disk | identity.json names them */
	CRASH_KEYS_NAMED = 27,            /* as the next ones | the service told */
	CRASH_REKEY_SENT = 28,            /* told | answered */
	CRASH_REKEYED = 29,               /* its answer was read | in force */
	CRASH_KEYS_SWITCHED = 30,         /* in force | identity.json names them as the present ones */
	CRASH_KEYS_REPLACED = 31,         /* named | the old signing key's file destroyed */
	CRASH_KEYS_DESTROYED = 32,        /* destroyed | whoever asked for it told */
	/* writebackd-channel */
	CRASH_FRAME_RECEIVED = 40,        /* the service's frame is here | with the agent's socket */
	CRASH_FRAME_HANDED_OVER = 41,     /* with the agent's socket */
	CRASH_FRAME_TAKEN = 42,           /* the agent's frame is here | with the service's connection */
	CRASH_FRAME_QUEUED = 43,          /* in the connection's buffer | with the kernel */
	CRASH_FRAME_SENT = 44,            /* with the kernel; in both the channel and the service */
	/* reset-service */
	CRASH_OPERATION_ASKED = 60,       /* accepted over HTTP | stored */
	CRASH_OPERATION_STORED = 61,      /* stored | sent to the agent */
	CRASH_REQUEST_SENT = 62,          /* in the connection's buffer | answered */
	CRASH_RESULT_RECEIVED = 63,       /* the agent's result is verified | stored */
	CRASH_RESULT_STORED = 64,         /* stored | told to who waits, and acknowledged */
	CRASH_RESULT_ACKNOWLEDGED = 65,   /* the acknowledgement is in the connection's buffer */
};

#ifdef WRITEBACK_CRASH_POINTS
void crash_point_pass(const char *name);
#define CRASH_POINT(name) ((void)CRASH_##name, crash_point_pass(#name))
#else
#define CRASH_POINT(name) ((void)CRASH_##name)
#endif

#endif
