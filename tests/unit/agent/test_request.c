/* The stages of a request, with the real gate, limits and journal and a directory that is played here: what is written, what is answered and what is remembered. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "agent/outbox.h"
#include "agent/request.h"
#include "base/clock.h"

#define ISSUER "https://reset.example.org"
#define AGENT "6f9619ff-8b86-4d01-b42d-00c04fc964ff"
#define ALICE "bee16f7b-e397-47cb-b09d-19fe6a9b229f"
#define GOOD "Gr33n-Field-Harbour"

/* The directory ------------------------------------------------------------------------------------------------------------------------- */

struct later;
struct directory {
	struct event_base *base;
	struct later *outstanding;
	bool ending;                   /* nothing may be begun any more */
};
struct located {
	bool second;                   /* on dc2 */
	unsigned references;           /* beside the first */
	struct account account;
	struct server_position position;
	struct replication_record record;
};
struct later {
	locate_done located;
	recheck_done rechecked;
	write_done written;
	verify_done verified;
	enum status (*still_wanted)(void *arg); /* of a write that waits for a place */
	struct located *found;
	void *arg;
	struct later *next;
	struct event *event;
};

/* The wall clock, where a test sets it. */
static int64_t clock_ahead_ms;
int64_t __real_clock_now_ms(void), __wrap_clock_now_ms(void);
int64_t __wrap_clock_now_ms(void) { return __real_clock_now_ms() + clock_ahead_ms; }

/* So long has this host, or the process, stood still. */
static int64_t stood_still_us;
int64_t __real_clock_boottime_us(void), __wrap_clock_boottime_us(void);
int64_t __wrap_clock_boottime_us(void) { return __real_clock_boottime_us() + stood_still_us; }

/* The so-manieth from now on fails; 0: none. */
static unsigned calloc_fails_at;
void *__real_calloc(size_t count, size_t size), *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size) { return calloc_fails_at && --calloc_fails_at == 0 ? NULL : __real_calloc(count, size); }

/* There is no memory for a time. */
static bool no_timers;
int __real_event_add(struct event *event, const struct timeval *after), __wrap_event_add(struct event *event, const struct timeval *after);
int __wrap_event_add(struct event *event, const struct timeval *after) { return no_timers && after ? -1 : __real_event_add(event, after); }

enum writing { WRITE_GOOD, WRITE_REJECTED, WRITE_DENIED, WRITE_LOST_APPLIED, WRITE_LOST, WRITE_REPLACED, WRITE_STALLED };
enum behind_bind { BEHIND_SAME, BEHIND_REWRITTEN, BEHIND_RENAMED, BEHIND_UNREADABLE, BEHIND_LOST, BEHIND_NO_SUCH_USER };
enum shown { RECORD_SHOWN, RECORD_YOUNG, RECORD_HIDDEN, RECORD_ABSENT };
static struct played {
	struct directory directory;
	struct account alice;
	uint32_t version;
	uint64_t usn;
	uint8_t originator[16];
	enum shown shown;              /* unicodePwd's record on dc1 */
	enum writing writing;
	enum status locating;
	bool left_open;                /* a lost answer is one that says nothing */
	bool disable_at_recheck;
	int64_t recheck_finds_s;       /* from the write on a recheck finds another record of unicodePwd, of then */
	unsigned overtaken_at, overtaken_twice; /* behind this recheck's beginning somebody sets the password; behind the next one's too */
	enum behind_bind behind_bind;  /* what a recheck finds behind the one bind */
	bool bind_told;
	bool stepwise;                 /* the loop comes back with every call of the directory under way */
	void (*recheck_with)(void);    /* happens with the answer to a recheck */
	int64_t clock_ahead_s;         /* of the server; INT64_MIN: it tells none, and no invocationId (flavor ldap) */
	int64_t written_at_s;          /* unicodePwd's record */
	int64_t retiring_until_us;     /* the connection of a lost write stands so long */
	unsigned unreadable;           /* so many readings from the third on fail */
	bool policy_control;
	void (*while_waiting[2])(void);/* happens before a write on dc1, dc2 is begun, once */
	bool waits_long;               /* it is not begun from inside the call then */
	unsigned located, rechecked, written, forgotten;
	unsigned longer_from;          /* from this recheck on the policy wants 30 characters */
	unsigned protected_from;       /* from this recheck on the account has a servicePrincipalName */
	bool cleared_lockout, must_change, enforced;
	char password[64], old_password[64];
	const char *right;             /* alice's password; NULL: what was written last */
	char stands[2][64];            /* that, on dc1 and dc2 */
	char tried_password[64];       /* at the last verification */
	bool tried_on_second;
	unsigned verified;
	bool mute;                     /* a verification is never answered */
	enum status says;              /* to every verification; STATUS_OK: what is true */
	bool second_writer;            /* an administrator writes behind every write */
	bool tried;                    /* unsent, but the old password was */
	bool unsent;                   /* the first write's connection is lost before it is sent */
	const char *stalls;            /* the journal, from the answer to the second write on: stalling */
	sqlite3 *stalling;
	enum { LOST_NOWHERE, LOST_BEFORE_RECHECK, LOST_BEFORE_WRITE } lost; /* the located one's connection is gone when this is begun, once */
	/* dc2: another controller of the domain. */
	struct {
		bool up, gone, moves_out, replicated;  /* replicated: the first write comes there between reading and writing */
		bool replicated_since;                 /* it comes there behind the second one, which is not done */
		uint32_t version;
		uint64_t usn;
		uint8_t originator[16];
		int64_t written_at_s;
		enum writing writing;
		unsigned located, rechecked, written;
		unsigned stands_in;                    /* so many readings from the second on find dc2 where dc1 was to be read */
		char password[64];
	} second;
} played;
static const uint8_t here[16] = { 1 }, elsewhere[16] = { 2 }, there[16] = { 3 };

const struct account *located_account(const struct located *located) { return &located->account; }
const struct server_position *located_position(const struct located *located) { return &located->position; }
const struct replication_record *located_password_record(const struct located *located) { return &located->record; }
const char *located_policy_control(const struct located *located) { return played.policy_control ? "1.2.840.113556.1.4.2239" : NULL; }
struct located *located_ref(struct located *located)
{
	located->references++;
	return located;
}
bool located_is_retiring(const struct located *located) { return clock_monotonic_us() < played.retiring_until_us; }
void located_free(struct located *located)
{
	if (located && located->references-- == 0)
		free(located);
}
void directory_forget_policies(struct directory *directory) { played.forgotten++; }
enum status directory_new(struct event_base *base, const struct directory_settings *settings, struct directory **ret_directory, char **ret_why)
{
	played.directory = (struct directory){ .base = base };
	*ret_directory = &played.directory;
	return STATUS_OK;
}
void directory_on_health(struct directory *directory, void (*changed)(struct directory *, void *arg), void *arg) {}
enum directory_claim directory_claims(const struct directory *directory, const char *domain) { return strcasecmp(domain, "corp.example.com") == 0 ? CLAIM_CONFIGURED : CLAIM_NONE; }
bool directory_serves(const struct directory *directory, const char *domain) { return strcasecmp(domain, "corp.example.com") == 0; }
void directory_health(const struct directory *directory, struct directory_health *ret_health)
{
	*ret_health = (struct directory_health){ .servers_up = 1, .servers = 1, .clock_skew_ms = 0 };
}
bool directory_domain_sid(const struct directory *directory, struct sid *ret_sid) { return sid_parse("S-1-5-21-1-2-3", ret_sid) == STATUS_OK; }
enum status directory_lookup_sid(struct directory *directory, const char *dn, int64_t timeout_ms, lookup_sid_done done, void *arg, struct directory_call **ret_call)
{
	return STATUS_DIRECTORY_UNAVAILABLE;
}

enum status directory_exists(struct directory *directory, const char *dn, int64_t timeout_ms, lookup_sid_done done, void *arg, struct directory_call **ret_call)
{
	return STATUS_DIRECTORY_UNAVAILABLE;
}

static void forget_later(struct later *later)
{
	struct later **at = &played.directory.outstanding;
	while (*at != later)
		at = &(*at)->next;
	*at = later->next;
	event_free(later->event);
	free(later);
}

/* As the directory ends all that is under way at its own end: a write may be on its way. */
void directory_free(struct directory *directory)
{
	played.directory.ending = true;
	while (played.directory.outstanding) {
		struct later later = *played.directory.outstanding;
		struct directory_answer answer = { .ldap_result = -1, .server = "dc1", .sent = later.written != NULL, .tried = later.verified != NULL };
		forget_later(played.directory.outstanding);
		if (later.located) {
			located_free(later.found);
			later.located(STATUS_DIRECTORY_UNAVAILABLE, NULL, &answer, later.arg);
		} else if (later.rechecked)
			later.rechecked(STATUS_DIRECTORY_UNAVAILABLE, &answer, later.arg);
		else
			(later.written ? later.written : later.verified)(STATUS_DIRECTORY_UNAVAILABLE, &answer, later.arg);
	}
}

/* What the second reading finds that the first did not. */
static void alter_recheck(struct located *found)
{
	if (played.recheck_finds_s && played.written)
		found->record = (struct replication_record){ .known = true, .version = played.version + 1, .originating_usn = 2000, .originator = { 2 }, .time_s = played.recheck_finds_s };
	if (played.overtaken_at && (played.rechecked == played.overtaken_at || (played.overtaken_twice && played.rechecked == played.overtaken_at + 1))) {
		found->record.version = ++played.version;
		found->record.originating_usn = ++played.usn;
		found->record.time_s = played.written_at_s = clock_now_ms() / 1000;
	}
	if (played.bind_told && played.behind_bind == BEHIND_REWRITTEN)
		found->record.version++;
	if (played.bind_told && played.behind_bind == BEHIND_RENAMED)
		found->account.dn = (char *)"CN=alice2,OU=People,DC=corp,DC=example,DC=com";
	if (played.recheck_with)
		played.recheck_with();
	if (played.disable_at_recheck)
		found->account.uac |= UAC_ACCOUNTDISABLE;
	if (found->second && played.second.moves_out)
		found->account.dn = (char *)"CN=alice,OU=Outside,DC=corp,DC=example,DC=com";
	if (found->second && played.second.replicated) {
		found->record.version++;
		found->record.originating_usn = 2000;
		memcpy(found->record.originator, here, 16);
	}
	if (played.longer_from && played.rechecked >= played.longer_from)
		found->account.policy.min_length = 30;
	if (played.protected_from && played.rechecked >= played.protected_from)
		found->account.has_spn = true;
}

static enum status end_write(bool second, struct directory_answer *answer)
{
	static const enum status statuses[] = { STATUS_OK, STATUS_POLICY_REJECTED, STATUS_DIRECTORY_DENIED, STATUS_DIRECTORY_TIMEOUT, STATUS_DIRECTORY_TIMEOUT, STATUS_DIRECTORY_TIMEOUT, STATUS_DIRECTORY_TIMEOUT };
	enum status status = statuses[second ? played.second.writing : played.writing];
	if (!second && played.unsent) {
		status = STATUS_DIRECTORY_UNAVAILABLE;
		answer->sent = false;
		answer->ldap_result = -1;
		answer->tried = played.tried;
		played.unsent = false;
	}
	snprintf(answer->server, sizeof answer->server, second ? "dc2" : "dc1");
	if (second && played.stalls) {
		assert_int_equal(sqlite3_open(played.stalls, &played.stalling), SQLITE_OK);
		assert_int_equal(sqlite3_exec(played.stalling, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	}
	answer->answered = status != STATUS_DIRECTORY_TIMEOUT && answer->sent;
	answer->ldap_result = status == STATUS_OK ? 0 : answer->answered ? 53 : played.left_open ? 52 : -1;
	status = played.left_open && !answer->answered ? STATUS_DIRECTORY_BUSY : status;
	return status;
}

static void run_later(evutil_socket_t fd, short what, void *arg)
{
	struct later own = *(struct later *)arg, *later = &own;
	forget_later(arg);
	struct directory_answer answer = { .ldap_result = 0, .server = "dc1", .sent = true, .answered = true };
	enum status status = STATUS_OK;
	if (later->located && played.locating != STATUS_OK) {
		located_free(later->found);
		later->found = NULL;
		status = played.locating;
	}
	if (later->rechecked)
		alter_recheck(later->found);
	if (later->rechecked && played.bind_told && played.behind_bind == BEHIND_UNREADABLE)
		status = STATUS_DIRECTORY_TIMEOUT;
	if (later->still_wanted) {
		played.while_waiting[later->found->second]();
		played.while_waiting[later->found->second] = NULL;
		status = later->still_wanted(later->arg);
		assert_int_not_equal(status, STATUS_OK);
		answer = (struct directory_answer){ .ldap_result = -1, .server = "dc1", .tried = played.tried };
	} else if (later->written) {
		status = end_write(later->found->second, &answer);
	}
	if (later->verified) {
		const char *right = played.right ? played.right : played.stands[played.tried_on_second];
		status = played.mute ? STATUS_DIRECTORY_TIMEOUT : strcmp(played.tried_password, right) == 0 ? STATUS_VERIFIED : STATUS_CREDENTIAL_WRONG;
		answer.answered = !played.mute;
		answer.tried = true;
		answer.ldap_result = status == STATUS_VERIFIED ? 0 : 49;
		status = played.says != STATUS_OK ? played.says : status;
		answer.win32 = played.behind_bind == BEHIND_NO_SUCH_USER ? 0x525 : 0;
		played.bind_told = true;
	}
	if (later->written && !later->still_wanted && played.right && played.old_password[0] && strcmp(played.old_password, played.right) != 0)
		status = STATUS_CREDENTIAL_WRONG;
	if (later->verified)
		later->verified(status, &answer, later->arg);
	else if (later->located)
		later->located(status, later->found, &answer, later->arg);
	else if (later->rechecked)
		later->rechecked(status, &answer, later->arg);
	else
		later->written(status, &answer, later->arg);
}

static enum status soon(struct later later)
{
	struct later *copy = malloc(sizeof *copy);
	assert_false(played.directory.ending);
	*copy = later;
	copy->next = played.directory.outstanding;
	copy->event = event_new(played.directory.base, -1, 0, run_later, copy);
	played.directory.outstanding = copy;
	event_active(copy->event, EV_TIMEOUT, 1);
	if (played.stepwise)
		event_base_loopbreak(played.directory.base);
	return STATUS_OK;
}

static struct located *find_on_second(void)
{
	struct located *found = calloc(1, sizeof *found);
	found->second = true;
	found->account = played.alice;
	found->position = (struct server_position){ .server = (char *)"dc2", .invocation_known = true, .highest_committed_usn = 7000 + played.second.usn };
	found->position.current_time_s = played.clock_ahead_s == INT64_MIN ? 0 : clock_now_ms() / 1000 + played.clock_ahead_s;
	memcpy(found->position.invocation_id, there, 16);
	found->record = (struct replication_record){ .known = true, .version = played.second.version, .originating_usn = played.second.usn, .time_s = played.second.written_at_s };
	memcpy(found->record.originator, played.second.originator, 16);
	return found;
}

enum status directory_locate(struct directory *directory, enum locate_by by, const char *id, const char *prefer_server, int64_t timeout_ms, locate_done done, void *arg,
                             struct directory_call **ret_call)
{
	struct located *found = calloc(1, sizeof *found);
	if (prefer_server && strcmp(prefer_server, "dc2") == 0 && !played.second.gone) {
		free(found);
		return soon((struct later){ .located = done, .found = find_on_second(), .arg = arg });
	}
	played.located++;
	if (played.located > 1 && played.located <= 1 + played.second.stands_in) {
		free(found);
		return soon((struct later){ .located = done, .found = find_on_second(), .arg = arg });
	}
	/* A server that stood still with our modify in its hands goes on after the first reading. */
	if (played.writing == WRITE_STALLED && played.located == 3) {
		played.version++;
		played.usn += 1001;
		strcpy(played.stands[0], played.password);
	}
	if (played.unreadable && played.located > 2 && played.located <= 2 + played.unreadable) {
		free(found);
		return STATUS_DIRECTORY_UNAVAILABLE;
	}
	found->account = played.alice;
	found->position = (struct server_position){ .server = (char *)"dc1", .invocation_known = played.clock_ahead_s != INT64_MIN, .highest_committed_usn = 1000 + played.usn };
	found->position.current_time_s = played.clock_ahead_s == INT64_MIN ? 0 : clock_now_ms() / 1000 + played.clock_ahead_s;
	memcpy(found->position.invocation_id, here, 16);
	found->record = (struct replication_record){ .known = true, .version = played.version, .originating_usn = played.usn, .time_s = played.written_at_s };
	memcpy(found->record.originator, played.originator, 16);
	found->record.young = played.shown == RECORD_YOUNG;
	if (played.shown == RECORD_HIDDEN || played.shown == RECORD_ABSENT)
		found->record = (struct replication_record){ .absent = played.shown == RECORD_ABSENT };
	return soon((struct later){ .located = done, .found = found, .arg = arg });
}

bool directory_has_beside(const struct directory *directory, const char *not_server)
{
	assert_string_equal(not_server, "dc1");
	return played.second.up;
}

enum status directory_locate_beside(struct directory *directory, enum locate_by by, const char *id, const char *not_server, int64_t timeout_ms, locate_done done, void *arg,
                                    struct directory_call **ret_call)
{
	assert_int_equal(by, LOCATE_OBJECT_GUID);
	assert_string_equal(id, ALICE);
	played.second.located++;
	return soon((struct later){ .located = done, .found = find_on_second(), .arg = arg });
}

enum status directory_recheck(struct located *located, int64_t timeout_ms, recheck_done done, void *arg, struct directory_call **ret_call)
{
	if (located->second)
		played.second.rechecked++;
	else
		played.rechecked++;
	if (played.bind_told && played.behind_bind == BEHIND_LOST)
		return STATUS_DIRECTORY_UNAVAILABLE;
	if (played.lost == LOST_BEFORE_RECHECK) {
		played.lost = LOST_NOWHERE;
		return STATUS_DIRECTORY_UNAVAILABLE;
	}
	return soon((struct later){ .rechecked = done, .found = located, .arg = arg });
}

enum status directory_write(struct located *located, const struct directory_change *change, int64_t timeout_ms, write_done done, void *arg, struct directory_call **ret_call)
{
	void (**while_waiting)(void) = &played.while_waiting[located->second];
	if (*while_waiting && played.waits_long)
		return soon((struct later){ .written = done, .still_wanted = change->still_wanted, .found = located, .arg = arg });
	if (*while_waiting)
		(*while_waiting)();
	*while_waiting = NULL;
	enum status wanted = change->still_wanted(arg);
	if (wanted != STATUS_OK)
		return wanted;
	if (located->second) {
		played.second.written++;
		if (played.second.replicated_since) {
			played.second.version = played.version;
			played.second.usn = played.usn;
			memcpy(played.second.originator, played.originator, 16);
		}
		snprintf(played.second.password, sizeof played.second.password, "%.*s", (int)change->password.size, (const char *)change->password.data);
		if (played.second.writing == WRITE_GOOD || played.second.writing == WRITE_LOST_APPLIED) {
			played.second.version++;
			played.second.usn = located->position.highest_committed_usn + 1;
			memcpy(played.second.originator, there, 16);
			strcpy(played.stands[1], played.second.password);
		}
		return soon((struct later){ .written = done, .found = located, .arg = arg });
	}
	if (played.lost == LOST_BEFORE_WRITE) {
		played.lost = LOST_NOWHERE;
		return STATUS_DIRECTORY_UNAVAILABLE;
	}
	played.written++;
	played.cleared_lockout = change->clear_lockout;
	played.must_change = change->must_change;
	played.enforced = change->enforce_policy;
	snprintf(played.old_password, sizeof played.old_password, "%.*s", (int)change->old_password.size, (const char *)change->old_password.data);
	snprintf(played.password, sizeof played.password, "%.*s", (int)change->password.size, (const char *)change->password.data);
	if (played.unsent) {
	} else if (played.writing == WRITE_GOOD || played.writing == WRITE_LOST_APPLIED || played.writing == WRITE_REPLACED) {
		played.version += played.second_writer ? 2 : 1;
		played.usn = located->position.highest_committed_usn + 1;
		memcpy(played.originator, played.writing == WRITE_REPLACED ? elsewhere : here, 16);
		strcpy(played.stands[0], played.second_writer || played.writing == WRITE_REPLACED ? "somebody-elses" : played.password);
	}
	return soon((struct later){ .written = done, .found = located, .arg = arg });
}

enum status directory_verify(struct located *located, struct bytes password, int64_t timeout_ms, verify_done done, void *arg, struct directory_call **ret_call)
{
	played.verified++;
	played.tried_on_second = located->second;
	snprintf(played.tried_password, sizeof played.tried_password, "%.*s", (int)password.size, (const char *)password.data);
	return soon((struct later){ .verified = done, .arg = arg });
}

/* The scene ----------------------------------------------------------------------------------------------------------------------------- */

struct scene {
	struct event_base *base;
	char folder[32];
	struct settings settings, *current;
	struct identity identity;
	struct journal *journal;
	struct limits *limits;
	struct realms *realms;
	struct requests *requests;
	struct result results[16];
	unsigned count, ended;
	char *asked;                   /* the payload of the last request */
};

static void keep_result(uint8_t endpoint, const char *payload, void *arg)
{
	struct scene *scene = arg;
	const char *member = NULL;
	assert_true(scene->count < 16);
	/* The payload has no time of its own before it is stamped. */
	char *stamped = outbox_stamp(&scene->identity, payload, clock_now_ms() / 1000);
	assert_non_null(stamped);
	assert_int_equal(result_parse(bytes_of_string(stamped), &scene->results[scene->count++], &member), STATUS_OK);
	free(stamped);
}

static void count_end(void *arg) { ((struct scene *)arg)->ended++; }

static void play_alice(void)
{
	static struct sid groups[1];
	played = (struct played){ .directory = played.directory };
	assert_int_equal(sid_parse("S-1-5-21-1-2-3-513", &groups[0]), STATUS_OK);
	played.policy_control = true;
	played.version = 2;
	played.usn = 500;
	memcpy(played.originator, here, 16);
	played.second.version = 2;
	played.second.usn = 500;
	memcpy(played.second.originator, here, 16);
	played.alice = (struct account){ .dn = (char *)"CN=alice,OU=People,DC=corp,DC=example,DC=com", .guid = ALICE, .sam_account_name = (char *)"alice", .is_user = true,
	                                 .uac = UAC_NORMAL_ACCOUNT, .account_expires_s = INT64_MAX, .groups = groups, .group_count = 1,
	                                 .policy = { .source = POLICY_DOMAIN, .min_length = 10, .complexity = true, .history = 5 } };
	assert_int_equal(sid_parse("S-1-5-21-1-2-3-1104", &played.alice.sid), STATUS_OK);
}

static void open_scene(struct scene *scene)
{
	char path[64], *why = NULL;
	snprintf(path, sizeof path, "%s/journal.db", scene->folder);
	struct journal_settings journal_settings = { path, 3600000, 1000 };
	scene->base = event_base_new();
	assert_int_equal(journal_open(scene->base, &journal_settings, &scene->journal, &why), STATUS_OK);
	struct limits_settings limits;
	settings_limits(&scene->settings, &limits);
	scene->limits = limits_new(&limits);
	assert_int_equal(realms_new(scene->base, &scene->settings, &scene->realms, &why), STATUS_OK);
	scene->current = &scene->settings;
	struct requests_world world = { scene->base, &scene->identity, scene->journal, scene->limits, scene->realms, (const struct settings *const *)&scene->current, keep_result, count_end, scene };
	scene->requests = requests_new(&world);
	requests_restore(scene->requests);
}

static void close_scene(struct scene *scene)
{
	requests_close(scene->requests);
	realms_free(scene->realms);
	journal_close(scene->journal);
	requests_free(scene->requests);
	limits_free(scene->limits);
	event_base_free(scene->base);
}

static void make_password(const char *folder)
{
	char path[256];
	snprintf(path, sizeof path, "%s/password", folder);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0 && write(fd, "secret\n", 7) == 7 && close(fd) == 0);
}

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof *scene);
	struct config_errors errors = { 0 };
	strcpy(scene->folder, "/tmp/test-request-XXXXXX");
	assert_non_null(mkdtemp(scene->folder));
	play_alice();
	clock_ahead_ms = stood_still_us = 0;
	char text[1024];
	snprintf(text, sizeof text, "state_directory: %s\nlimits: {per_user_hour: 2, in_flight: 3}\nsettling: {delay: 200ms, limit: 2s}\ndirectories:\n  - name: corp\n    servers: [dc1]\n"
	         "    bind: {dn: a@b, password_file: %s/password}\n    scope: {users: selected, bases: [\"OU=People,DC=corp,DC=example,DC=com\"]}\n", scene->folder, scene->folder);
	make_password(scene->folder);
	assert_int_equal(settings_parse("test.yaml", text, &scene->settings, &errors), STATUS_OK);
	scene->identity = (struct identity){ .enrolled = true, .issuer = strdup(ISSUER) };
	strcpy(scene->identity.agent_id, AGENT);
	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &scene->identity.decryption), STATUS_OK);
	open_scene(scene);
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;
	char command[64];
	close_scene(scene);
	for (unsigned i = 0; i < scene->count; i++)
		result_clear(&scene->results[i]);
	settings_clear(&scene->settings);
	identity_clear(&scene->identity);
	snprintf(command, sizeof command, "rm -r %s", scene->folder);
	int failed = system(command);
	free(scene->asked);
	free(scene);
	return failed;
}

/* Asking -------------------------------------------------------------------------------------------------------------------------------- */

struct ask {
	enum operation op;
	const char *password;
	bool must_change, keep_locked;
	const char *user;
	const char *request_id;    /* NULL: a new one */
	const char *directory;
	const char *secret_for;    /* the operation_id in the secret, where it differs */
	const char *old_password;
	bool early;                /* issued a second before the agent's start; else a second behind it */
	int64_t first_iat, failover_after;
	unsigned held_s;           /* on its way */
};

static void ask(struct scene *scene, struct ask ask)
{
	struct request_claims claims = { .issuer = (char *)ISSUER, .audience = (char *)AGENT, .iat = clock_now_ms() / 1000 + (ask.early ? -1 : 1), .first_iat = ask.first_iat, .failover_after = ask.failover_after, .op = ask.op, .must_change = ask.must_change, .unlock = !ask.keep_locked,
	                                 .enforce_policy = true, .subject = { SUBJECT_UPN, (char *)(ask.user ? ask.user : "alice@corp.example.com"), NULL } };
	claims.exp = claims.iat + 30;
	claims.directory = (char *)ask.directory;
	uuid_random(claims.request_id);
	uuid_random(claims.operation_id);
	if (ask.request_id)
		strcpy(claims.request_id, ask.request_id);
	if (ask.password || ask.old_password) {
		struct request_claims inner = claims;
		struct secret plaintext = SECRET_EMPTY;
		if (ask.secret_for)
			strcpy(inner.operation_id, ask.secret_for);
		assert_int_equal(secret_claims_build(&inner, bytes_of_string(ask.password ? ask.password : ""), bytes_of_string(ask.old_password ? ask.old_password : ""), &plaintext), STATUS_OK);
		assert_int_equal(jose_encrypt(scene->identity.decryption, secret_bytes(&plaintext), &claims.secret), STATUS_OK);
		secret_wipe(&plaintext);
	}
	char *payload = request_build(&claims);
	/* The frame's bytes stand for the signed message. */
	sleep(ask.held_s);
	requests_handle(scene->requests, 0, bytes_of_string(payload), bytes_of_string(payload), clock_monotonic_us());
	free(scene->asked);
	scene->asked = payload;
	free(claims.secret);
}

static void ask_again(struct scene *scene)
{
	requests_handle(scene->requests, 0, bytes_of_string(scene->asked), bytes_of_string(scene->asked), clock_monotonic_us());
}

static void stop_waiting(evutil_socket_t fd, short what, void *arg) { *(bool *)arg = true; }

static void run_until(struct scene *scene, unsigned ended)
{
	bool late = false;
	struct event *deadline = event_new(scene->base, -1, 0, stop_waiting, &late);
	event_add(deadline, &(struct timeval){ 4, 0 });
	while (scene->ended < ended && !late)
		event_base_loop(scene->base, EVLOOP_ONCE);
	event_free(deadline);
	assert_int_equal(scene->ended, ended);
}

/* Several may end in one turn of the loop. */
static void run_until_told(struct scene *scene, unsigned count)
{
	bool late = false;
	struct event *deadline = event_new(scene->base, -1, 0, stop_waiting, &late);
	event_add(deadline, &(struct timeval){ 4, 0 });
	while (scene->count < count && !late)
		event_base_loop(scene->base, EVLOOP_ONCE);
	event_free(deadline);
	assert_true(scene->count >= count);
}

static void run_for(struct scene *scene, int ms)
{
	event_base_loopexit(scene->base, &(struct timeval){ ms / 1000, ms % 1000 * 1000 });
	event_base_dispatch(scene->base);
}

static const struct result *ask_one(struct scene *scene, struct ask what)
{
	unsigned ended = scene->ended;
	ask(scene, what);
	run_until(scene, ended + 1);
	return &scene->results[scene->count - 1];
}

/* A full disk. */
static void stop_writing(struct rlimit *ret_before)
{
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, ret_before), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 1, ret_before->rlim_max }), 0);
}

static const struct journal_entry *entry_of(struct scene *scene, const struct result *result)
{
	return journal_find(scene->journal, result->request_id);
}

/* Tests --------------------------------------------------------------------------------------------------------------------------------- */

static void test_reset(void **state)
{
	struct scene *scene = *state;
	played.alice.locked = played.alice.lockout_time_set = true;
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(result->code, STATUS_OK);
	assert_string_equal(result->user_guid, ALICE);
	assert_int_equal(result->was_locked, 1);
	assert_string_equal(result->directory, "corp");
	assert_string_equal(result->server, "dc1");
	assert_int_equal(result->ldap_result, 0);
	assert_string_equal(played.password, GOOD);
	assert_true(played.cleared_lockout && played.enforced);
	assert_false(played.must_change);
	assert_int_equal(played.rechecked, 2); /* before the write and after it */
	const struct journal_entry *entry = entry_of(scene, result);
	assert_int_equal(entry->state, JOURNAL_OUTCOME);
	assert_true(entry->counts && entry->sets_password);
	assert_null(strstr(entry->result, GOOD));
	assert_int_equal(limits_in_flight(scene->limits), 0);
}

/* The outcome stays what it is: he was written to. */
static void test_protected_after_the_write(void **state)
{
	struct scene *scene = *state;
	played.protected_from = 2;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	assert_int_equal(played.rechecked, 2);
	assert_int_equal(played.written, 1);
	played.protected_from = 1; /* seen before it: nothing is written */
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_USER_PROTECTED);
	assert_int_equal(played.written, 1);
}

static void test_not_in_normalization_form_c(void **state)
{
	struct scene *scene = *state;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, "Gr\xc3\xbcn-Harbour-7" })->warnings, 0);
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, "Gru\xcc\x88n-Harbour-7" });
	assert_int_equal(result->code, STATUS_OK);
	assert_int_equal(result->warnings, WARNING_PASSWORD_NOT_NFC);
	assert_string_equal(played.password, "Gru\xcc\x88n-Harbour-7");
}

static void test_reset_keeps_the_lockout_if_told(void **state)
{
	struct scene *scene = *state;
	played.alice.locked = played.alice.lockout_time_set = true;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD, .keep_locked = true, .must_change = true })->code, STATUS_OK);
	assert_false(played.cleared_lockout);
	assert_true(played.must_change);
}

static void test_check_writes_nothing(void **state)
{
	struct scene *scene = *state;
	const struct result *result = ask_one(scene, (struct ask){ OP_CHECK, GOOD });
	assert_int_equal(result->code, STATUS_PLAUSIBLE);
	assert_int_equal(played.written, 0);
	assert_false(entry_of(scene, result)->counts);
}

static void test_unlock(void **state)
{
	struct scene *scene = *state;
	assert_int_equal(ask_one(scene, (struct ask){ OP_UNLOCK })->code, STATUS_OK);
	assert_int_equal(played.written, 0);
	assert_int_equal(scene->results[0].was_locked, 0);
	played.alice.locked = played.alice.lockout_time_set = true;
	const struct result *result = ask_one(scene, (struct ask){ OP_UNLOCK });
	assert_int_equal(result->code, STATUS_OK);
	assert_int_equal(result->was_locked, 1);
	assert_int_equal(played.written, 1);
	assert_string_equal(played.password, "");
}

/* Refused before anything is written. */
static void assert_refused(struct scene *scene, struct ask what, enum status code)
{
	const struct result *result = ask_one(scene, what);
	assert_string_equal(status_code(result->code), status_code(code));
	assert_int_equal(played.written, 0);
}

/* Names that were never looked up say nothing about the user: that is no refusal, and may succeed later. */
static void test_scope_not_known_yet(void **state)
{
	struct scene *scene = *state;
	struct settings other;
	struct config_errors errors = { 0 };
	char text[1024];
	snprintf(text, sizeof text, "state_directory: %s\ndirectories:\n  - name: corp\n    servers: [dc1]\n    bind: {dn: a@b, password_file: %s/password}\n"
	         "    scope: {users: all, exclude_bases: [\"OU=Outside,DC=corp,DC=example,DC=com\"]}\n", scene->folder, scene->folder);
	assert_int_equal(settings_parse("test.yaml", text, &other, &errors), STATUS_OK);
	assert_int_equal(realms_rescope(scene->realms, &other), STATUS_OK);
	assert_refused(scene, (struct ask){ OP_RESET, GOOD }, STATUS_DIRECTORY_UNAVAILABLE);
	assert_int_equal(realms_rescope(scene->realms, &scene->settings), STATUS_OK);
	settings_clear(&other);
}

/* What is refused is freed by whoever brought it: nothing points into it then. */
static void test_scope_without_memory_stays(void **state)
{
	struct scene *scene = *state;
	enum status status = STATUS_AGENT_INTERNAL;
	for (unsigned n = 1; status != STATUS_OK; n++) {
		struct settings other;
		struct config_errors errors = { 0 };
		char text[1024];
		snprintf(text, sizeof text, "state_directory: %s\ndirectories:\n  - name: %s\n    servers: [dc1]\n    bind: {dn: a@b, password_file: %s/password}\n"
		         "    scope: {users: all, exclude_bases: [\"OU=Outside,DC=corp,DC=example,DC=com\"], exclude_groups: [\"CN=Some,DC=corp,DC=example,DC=com\"]}\n", scene->folder, n == 1 ? "another" : "corp", scene->folder);
		assert_int_equal(settings_parse("test.yaml", text, &other, &errors), STATUS_OK);
		calloc_fails_at = n;
		status = realms_rescope(scene->realms, &other);
		assert_true(n < 100);
		assert_int_equal(status, n == 1 ? STATUS_LOCAL_CONFIG : calloc_fails_at == 0 ? STATUS_AGENT_INTERNAL : STATUS_OK);
		calloc_fails_at = 0;
		if (status == STATUS_OK)
			assert_int_equal(realms_rescope(scene->realms, &scene->settings), STATUS_OK);
		settings_clear(&other);
		assert_int_equal(ask_one(scene, (struct ask){ OP_UNLOCK })->code, STATUS_OK);
		result_clear(&scene->results[--scene->count]);
	}
}

static void test_refusals(void **state)
{
	struct scene *scene = *state;
	assert_refused(scene, (struct ask){ OP_RESET, "short" }, STATUS_POLICY_TOO_SHORT);
	assert_int_equal(scene->results[0].rules[0].required, 10);
	assert_refused(scene, (struct ask){ OP_RESET, GOOD, .secret_for = AGENT }, STATUS_REQUEST_SECRET_MISMATCH);
	assert_refused(scene, (struct ask){ OP_RESET, GOOD, .user = "alice@other.example.com" }, STATUS_USER_NOT_FOUND);
	assert_refused(scene, (struct ask){ OP_VERIFY, .old_password = GOOD }, STATUS_REQUEST_UNSUPPORTED);
	/* The directory is not in the secret: it must not lead to another user than the domain does. */
	unsigned located = played.located;
	assert_refused(scene, (struct ask){ OP_RESET, GOOD, .user = "alice@other.example.com", .directory = "corp" }, STATUS_USER_NOT_FOUND);
	assert_int_equal(played.located, located);
	assert_refused(scene, (struct ask){ OP_CHECK, GOOD, .directory = "nowhere" }, STATUS_USER_NOT_FOUND);
	played.alice.dn = (char *)"CN=alice,OU=Outside,DC=corp,DC=example,DC=com";
	assert_refused(scene, (struct ask){ OP_RESET, GOOD }, STATUS_USER_OUT_OF_SCOPE);
	/* Nothing is told of whom the premises do not show. */
	assert_string_equal(scene->results[scene->count - 1].user_guid, "");
	assert_true(scene->results[scene->count - 1].was_locked < 0);
	assert_string_equal(entry_of(scene, &scene->results[scene->count - 1])->user_guid, ALICE);
	play_alice();
	played.alice.uac |= UAC_ACCOUNTDISABLE;
	played.directory.base = scene->base;
	assert_refused(scene, (struct ask){ OP_RESET, GOOD }, STATUS_USER_DISABLED);
	play_alice();
	played.policy_control = false;
	assert_refused(scene, (struct ask){ OP_RESET, GOOD }, STATUS_DIRECTORY_NO_POLICY_CONTROL);
	played.policy_control = true;
	played.locating = STATUS_USER_AMBIGUOUS;
	assert_refused(scene, (struct ask){ OP_RESET, GOOD }, STATUS_USER_AMBIGUOUS);
}

static void test_disabled_between_reading_and_writing(void **state)
{
	struct scene *scene = *state;
	played.disable_at_recheck = true;
	assert_refused(scene, (struct ask){ OP_RESET, GOOD }, STATUS_USER_DISABLED);
	assert_int_equal(played.rechecked, 1);
}

static void test_rejected_by_the_directory(void **state)
{
	struct scene *scene = *state;
	played.writing = WRITE_REJECTED;
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(result->code, STATUS_POLICY_HISTORY_OR_FILTER);
	assert_int_equal(result->rules[0].kind, RULE_HISTORY_OR_FILTER);
	assert_false(entry_of(scene, result)->counts);
	/* The policy that was known did not explain it: it was read once more, and still does not. */
	assert_int_equal(played.forgotten, 1);
	assert_int_equal(played.rechecked, 2);
	played.longer_from = 4;
	result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(result->code, STATUS_POLICY_TOO_SHORT);
	assert_int_equal(result->rules[0].required, 30);
	assert_int_equal(played.forgotten, 2);
	played.longer_from = 0;
	played.writing = WRITE_DENIED;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_DIRECTORY_DENIED);
}

static void test_delivered_again(void **state)
{
	struct scene *scene = *state;
	char first[4096], payload[8192];
	struct request_claims claims = { .issuer = (char *)ISSUER, .audience = (char *)AGENT, .iat = clock_now_ms() / 1000, .op = OP_UNLOCK, .unlock = true, .enforce_policy = true,
	                                 .subject = { SUBJECT_UPN, (char *)"alice@corp.example.com", NULL } };
	claims.exp = claims.iat + 30;
	uuid_random(claims.request_id);
	uuid_random(claims.operation_id);
	char *text = request_build(&claims);
	snprintf(payload, sizeof payload, "%s", text);
	free(text);
	played.alice.lockout_time_set = true;
	/* Twice at once: one write, one result; again afterwards: the recorded outcome. */
	requests_handle(scene->requests, 0, bytes_of_string(payload), bytes_of_string(payload), clock_monotonic_us());
	requests_handle(scene->requests, 0, bytes_of_string(payload), bytes_of_string(payload), clock_monotonic_us());
	run_until(scene, 1);
	assert_int_equal(scene->count, 1);
	requests_handle(scene->requests, 0, bytes_of_string(payload), bytes_of_string(payload), clock_monotonic_us());
	assert_int_equal(scene->count, 2);
	assert_int_equal(scene->results[1].code, STATUS_OK);
	assert_string_equal(scene->results[1].request_id, claims.request_id);
	assert_int_equal(played.written, 1);
	/* The same id with other bytes. */
	snprintf(first, sizeof first, "%s", claims.request_id);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD, .request_id = first })->code, STATUS_REQUEST_REPLAYED);
	assert_string_equal(journal_find(scene->journal, first)->code, "ok");
	assert_int_equal(played.written, 1);
}

/* A request that another agent may be asked for, whose channel is lost before it has written; it is delivered again, or not. */
static char *lose_channel(struct scene *scene, int64_t failover_after, int64_t lifetime_s)
{
	struct request_claims claims = { .issuer = (char *)ISSUER, .audience = (char *)AGENT, .iat = clock_now_ms() / 1000, .op = OP_UNLOCK, .unlock = true, .enforce_policy = true,
	                                 .subject = { SUBJECT_UPN, (char *)"alice@corp.example.com", NULL }, .failover_after = failover_after };
	claims.exp = claims.iat + lifetime_s;
	uuid_random(claims.request_id);
	uuid_random(claims.operation_id);
	played.alice.lockout_time_set = true;
	char *payload = request_build(&claims);
	requests_handle(scene->requests, 0, bytes_of_string(payload), bytes_of_string(payload), clock_monotonic_us());
	requests_channel_lost(scene->requests, 0);
	return payload;
}

static void test_nothing_is_written_before_it_is_delivered_again(void **state)
{
	struct scene *scene = *state;
	char *payload = lose_channel(scene, 4, 30);
	run_for(scene, 200);
	assert_int_equal(played.written, 0);
	assert_int_equal(scene->ended, 0);
	unsigned located = played.located;
	requests_handle(scene->requests, 1, bytes_of_string(payload), bytes_of_string(payload), clock_monotonic_us());
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_OK);
	assert_int_equal(played.written, 1);
	assert_true(played.located > located); /* what was read before is old */
	free(payload);
}

/* Meanwhile the other agent has been asked, and has done it. */
static void test_what_another_agent_has_done_meanwhile_is_not_done_again(void **state)
{
	struct scene *scene = *state;
	played.right = GOOD;
	ask(scene, (struct ask){ OP_RESET, GOOD, .failover_after = 30 });
	requests_channel_lost(scene->requests, 0);
	run_for(scene, 200);
	assert_int_equal(played.verified, 0);
	played.written_at_s = clock_now_ms() / 1000;
	ask_again(scene);
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_OK);
	assert_int_equal(played.verified, 1);
	assert_int_equal(played.written, 0);
}

static struct scene *losing;
static void lose_endpoint(evutil_socket_t fd, short what, void *arg) { requests_channel_lost(losing->requests, 0); }
static void lose_endpoint_next(void)
{
	event_base_once(losing->base, -1, EV_TIMEOUT, lose_endpoint, NULL, &(struct timeval){ 0, 0 });
	played.recheck_with = NULL;
}

/* The process stood still: the last answer before the write and the loss of the channel are there to be read at once. */
static void test_the_channels_loss_is_heard_before_the_write(void **state)
{
	struct scene *scene = losing = *state;
	played.recheck_with = lose_endpoint_next;
	ask(scene, (struct ask){ OP_RESET, GOOD, .failover_after = 30 });
	run_for(scene, 200);
	assert_int_equal(played.written, 0);
	ask_again(scene);
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_OK);
	assert_int_equal(played.written, 1);
}

/* What happens while a write waits for a place in the pipeline, a connection or a bind. */
static void nothing_happens(void) {}
static void it_expires(void) { clock_ahead_ms += 31000; }
static void the_channel_is_lost(void) { requests_channel_lost(losing->requests, 0); }
static void time_passes(void) { stood_still_us += 1500000; }
static void it_stands_still(void) { stood_still_us += 2500000; }

static const struct waiting { void (*happens)(void); int64_t failover_after; unsigned looks; enum status code; } WAITING[] = {
	{ nothing_happens, 4, 1, STATUS_OK }, { it_expires, 4, 1, STATUS_REQUEST_EXPIRED }, { it_expires, 0, 1, STATUS_REQUEST_EXPIRED },
	{ the_channel_is_lost, 4, 2, STATUS_OK }, { the_channel_is_lost, 0, 1, STATUS_OK },
	{ it_stands_still, 4, 2, STATUS_OK }, { it_stands_still, 0, 1, STATUS_OK }, { time_passes, 4, 1, STATUS_OK }, { time_passes, 2, 2, STATUS_OK },
};

/* Whatever it waited for: it is asked for once more right before it is handed to its connection. */
static void test_a_write_that_has_waited_is_still_wanted(void **state)
{
	static const struct ask ASKS[] = { { OP_RESET, GOOD }, { OP_UNLOCK }, { OP_CHANGE, GOOD, .old_password = "Old-Marble-Step-1" } };
	for (size_t i = 0; i < sizeof WAITING / sizeof WAITING[0] * 3 * 2; i++) {
		const struct waiting *row = &WAITING[i / 6];
		struct ask what = ASKS[i / 2 % 3];
		assert_int_equal(teardown(state) | setup(state), 0);
		struct scene *scene = losing = *state;
		played.waits_long = i % 2;
		/* Behind a place the write of one that goes on is not played. */
		if (played.waits_long && row->code == STATUS_OK && row->looks == 1)
			continue;
		played.while_waiting[0] = row->happens;
		played.alice.lockout_time_set = true;
		played.tried = what.op == OP_CHANGE;
		what.failover_after = row->failover_after;
		ask(scene, what);
		if (row->happens == the_channel_is_lost && row->failover_after) {
			run_for(scene, 100);
			assert_null(played.while_waiting[0]);
			assert_int_equal(played.written + scene->ended, 0);
			ask_again(scene);
		}
		run_until(scene, 1);
		const struct result *result = &scene->results[scene->count - 1];
		assert_int_equal(result->code, row->code);
		assert_int_equal(scene->count, 1);
		assert_int_equal(played.written, row->code == STATUS_OK);
		assert_int_equal(played.located, row->looks);
		const struct journal_entry *entry = entry_of(scene, result);
		assert_int_equal(entry->state, JOURNAL_OUTCOME);
		assert_string_equal(entry->code, status_code(row->code));
		assert_int_equal(entry->counts, row->code == STATUS_OK);
		assert_int_equal(entry->wrong_at_ms, 0);
	}
}

static void somebody_writes_and_it_stands_still(void)
{
	it_stands_still();
	played.version++;
	played.usn++;
	played.written_at_s = clock_now_ms() / 1000;
}

/* It may be another agent's, with this very operation: the bind tells. */
static void test_what_is_written_while_a_write_waits(void **state)
{
	static const struct { const char *right; unsigned written; } rows[] = { { GOOD, 0 }, { "an administrator's", 1 } };
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		played.written_at_s = clock_now_ms() / 1000 - 3600;
		played.waits_long = i % 2;
		played.while_waiting[0] = somebody_writes_and_it_stands_still;
		played.right = rows[i / 2].right;
		assert_int_equal(ask_one(*state, (struct ask){ OP_RESET, GOOD, .failover_after = 4 })->code, STATUS_OK);
		assert_int_equal(played.verified, 1);
		assert_int_equal(played.written, rows[i / 2].written);
	}
}

static void it_is_readable_now(void)
{
	somebody_writes_and_it_stands_still();
	played.shown = RECORD_SHOWN;
}

/* What was written meanwhile cannot be compared: where the look was repeated, another agent may have been asked. The first look and one at a user without a password cost no bind. */
static void test_what_cannot_be_read_is_tried_behind_a_repeated_look(void **state)
{
	static const struct { enum shown shown; void (*happens)(void); int64_t failover_after; const char *right; enum status code; unsigned verified, written; } rows[] = {
		{ RECORD_HIDDEN, it_stands_still, 4, GOOD, STATUS_OK, 1, 0 }, { RECORD_HIDDEN, it_stands_still, 4, "another", STATUS_OUTCOME_UNKNOWN, 1, 0 },
		{ RECORD_HIDDEN, nothing_happens, 4, "another", STATUS_OK, 0, 1 }, { RECORD_HIDDEN, time_passes, 4, "another", STATUS_OK, 0, 1 }, { RECORD_HIDDEN, it_stands_still, 0, "another", STATUS_OK, 0, 1 },
		{ RECORD_ABSENT, it_stands_still, 4, "another", STATUS_OK, 0, 1 },
		{ RECORD_HIDDEN, it_is_readable_now, 4, GOOD, STATUS_OK, 1, 0 }, { RECORD_ABSENT, it_is_readable_now, 4, GOOD, STATUS_OK, 1, 0 },
		{ RECORD_HIDDEN, it_is_readable_now, 4, "an administrator's", STATUS_OK, 1, 1 }, { RECORD_ABSENT, it_is_readable_now, 0, GOOD, STATUS_OK, 0, 1 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		played.shown = rows[i].shown;
		played.while_waiting[0] = rows[i].happens;
		played.right = rows[i].right;
		const struct result *result = ask_one(*state, (struct ask){ OP_RESET, GOOD, .failover_after = rows[i].failover_after });
		assert_string_equal(status_code(result->code), status_code(rows[i].code));
		assert_int_equal(played.verified, rows[i].verified);
		assert_int_equal(played.written, rows[i].written);
	}
}

/* Each look takes that long: it is not looked at until the request has expired. */
static void test_a_slow_directory_is_written_to_all_the_same(void **state)
{
	struct scene *scene = *state;
	played.recheck_with = it_stands_still;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD, .failover_after = 4 })->code, STATUS_OK);
	assert_int_equal(played.located, 2);
	assert_int_equal(played.written, 1);
}

static void it_stands_still_and_the_channels_loss_is_not_heard(void)
{
	it_stands_still();
	event_base_once(losing->base, -1, EV_TIMEOUT, lose_endpoint, NULL, &(struct timeval){ 0, 0 });
}

/* Nor is a second write handed over; it is tried again where that may still be. */
static void test_a_second_write_that_has_waited_is_still_wanted(void **state)
{
	for (size_t i = 0; i < sizeof WAITING / sizeof WAITING[0] * 2; i++) {
		const struct waiting *row = &WAITING[i / 2];
		assert_int_equal(teardown(state) | setup(state), 0);
		struct scene *scene = losing = *state;
		bool lost = row->happens == the_channel_is_lost && row->failover_after;
		played.waits_long = i % 2;
		if (played.waits_long && row->code == STATUS_OK && row->looks == 1)
			continue;
		played.second.up = true;
		played.writing = WRITE_LOST;
		played.while_waiting[1] = row->happens;
		ask(scene, (struct ask){ OP_RESET, GOOD, .failover_after = row->failover_after });
		run_until(scene, 1);
		assert_null(played.while_waiting[1]);
		assert_int_equal(scene->results[scene->count - 1].code, lost || row->code != STATUS_OK ? STATUS_DIRECTORY_TIMEOUT : STATUS_OK);
		assert_int_equal(played.written, 1);
		assert_int_equal(played.second.written, !lost && row->code == STATUS_OK);
	}
}

/* The look before the first write is old; that before the second one is looked at by itself: the process stands still behind it, with the channel's end there to be read. Each is repeated once. */
static void test_each_write_has_a_look_of_its_own(void **state)
{
	for (unsigned lost = 0; lost < 2; lost++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		struct scene *scene = losing = *state;
		played.second.up = true;
		played.writing = WRITE_LOST;
		played.while_waiting[0] = it_stands_still;
		played.while_waiting[1] = lost ? it_stands_still_and_the_channels_loss_is_not_heard : it_stands_still;
		ask(scene, (struct ask){ OP_RESET, GOOD, .failover_after = 4 });
		run_until(scene, 1);
		assert_null(played.while_waiting[1]);
		assert_int_equal(played.written, 1);
		assert_int_not_equal(played.second.located, 1);
		assert_int_equal(played.second.written, !lost);
		assert_int_equal(scene->results[scene->count - 1].code, lost ? STATUS_DIRECTORY_TIMEOUT : STATUS_OK);
	}
}

/* Its answer is lost with the channel: another agent may be writing already, unless the request has come again. */
static void test_no_second_write_while_undelivered(void **state)
{
	for (unsigned again = 0; again < 2; again++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		struct scene *scene = *state;
		played.second.up = true;
		played.writing = WRITE_LOST;
		ask(scene, (struct ask){ OP_RESET, GOOD, .failover_after = 30 });
		while (played.written == 0)
			event_base_loop(scene->base, EVLOOP_ONCE);
		requests_channel_lost(scene->requests, 0);
		if (again)
			ask_again(scene);
		run_until(scene, 1);
		assert_int_equal(scene->results[scene->count - 1].code, again ? STATUS_OK : STATUS_DIRECTORY_TIMEOUT);
		assert_int_equal(played.second.written, again);
	}
}

static void test_it_expires_where_it_is_not_delivered_again(void **state)
{
	struct scene *scene = *state;
	free(lose_channel(scene, 4, 2));
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_REQUEST_EXPIRED);
	assert_int_equal(played.written, 0);
}

static void test_what_nobody_else_is_asked_for_goes_on(void **state)
{
	struct scene *scene = *state;
	free(lose_channel(scene, 0, 30));
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_OK);
	/* Nor does the loss of another endpoint's channel hold it up. */
	char *payload = lose_channel(scene, 4, 30);
	requests_handle(scene->requests, 1, bytes_of_string(payload), bytes_of_string(payload), clock_monotonic_us());
	requests_channel_lost(scene->requests, 0);
	run_until(scene, 2);
	assert_int_equal(scene->results[1].code, STATUS_OK);
	free(payload);
}

static void test_limits(void **state)
{
	struct scene *scene = *state;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(result->code, STATUS_AGENT_THROTTLED);
	assert_true(result->retry_after > 0);
	/* The counts survive a restart. */
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_AGENT_THROTTLED);
	assert_int_equal(played.written, 2);
}

static void test_resumed_and_restarted(void **state)
{
	struct scene *scene = *state;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	journal_set_number(scene->journal, REQUESTS_RESUMED_MS, clock_now_ms());
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	journal_set_number(scene->journal, REQUESTS_RESUMED_MS, clock_now_ms() + 3600000);
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_AGENT_THROTTLED);
}

static void test_overload_is_answered_and_not_kept(void **state)
{
	struct scene *scene = *state;
	for (unsigned i = 0; i < 3; i++)
		ask(scene, (struct ask){ OP_CHECK, GOOD });
	ask(scene, (struct ask){ OP_CHECK, GOOD });
	run_until_told(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_AGENT_OVERLOADED);
	assert_null(entry_of(scene, &scene->results[0]));
	run_until(scene, 4);
}

/* A request's bytes, to be sent more than once. */
static char *build_frame(enum operation op, int64_t ahead_s, char ret_id[UUID_SIZE])
{
	struct request_claims claims = { .issuer = (char *)ISSUER, .audience = (char *)AGENT, .iat = clock_now_ms() / 1000 + ahead_s, .op = op, .unlock = true, .enforce_policy = true,
	                                 .subject = { SUBJECT_UPN, (char *)"alice@corp.example.com", NULL } };
	claims.exp = claims.iat + 30;
	uuid_random(claims.request_id);
	uuid_random(claims.operation_id);
	strcpy(ret_id, claims.request_id);
	return request_build(&claims);
}

static void deliver(struct scene *scene, const char *frame)
{
	requests_handle(scene->requests, 0, bytes_of_string(frame), bytes_of_string(frame), clock_monotonic_us());
}

/* An unlock, behind as many as there may be at once: malloc'ed. */
static char *deliver_one_too_many(struct scene *scene, char *ret_id)
{
	char *frame = build_frame(OP_UNLOCK, 0, ret_id);
	played.alice.lockout_time_set = true;
	for (unsigned i = 0; i < 3; i++)
		ask(scene, (struct ask){ OP_CHECK, GOOD });
	deliver(scene, frame);
	return frame;
}

/* "Nothing was taken in" must stay true, whoever keeps the bytes and brings them again. */
static void test_overload_is_answered_again(void **state)
{
	struct scene *scene = *state;
	char id[UUID_SIZE], *frame = deliver_one_too_many(scene, id);
	run_until(scene, 4);
	assert_int_equal(scene->results[0].code, STATUS_AGENT_OVERLOADED);
	deliver(scene, frame);
	assert_int_equal(scene->count, 5);
	assert_int_equal(scene->results[4].code, STATUS_AGENT_OVERLOADED);
	assert_string_equal(scene->results[4].request_id, id);
	assert_int_equal(limits_in_flight(scene->limits), 0);
	/* Other bytes under that id speak of their frame. */
	assert_int_equal(ask_one(scene, (struct ask){ OP_UNLOCK, .request_id = id })->code, STATUS_REQUEST_REPLAYED);
	/* Nor after a restart, which has forgotten it: it is as good as expired. */
	close_scene(scene);
	open_scene(scene);
	unsigned ended = scene->ended;
	deliver(scene, frame);
	run_until(scene, ended + 1);
	assert_int_equal(scene->results[scene->count - 1].code, STATUS_REQUEST_EXPIRED);
	assert_int_equal(played.written, 0);
	free(frame);
}

/* Nobody hears of it before it is on disk that nothing as old is taken in after a restart. */
static void test_overload_is_told_once_it_would_survive(void **state)
{
	struct scene *scene = *state;
	char id[UUID_SIZE], path[64], *frame;
	sqlite3 *stalling;
	snprintf(path, sizeof path, "%s/journal.db", scene->folder);
	assert_int_equal(sqlite3_open(path, &stalling), SQLITE_OK);
	assert_int_equal(sqlite3_exec(stalling, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	frame = deliver_one_too_many(scene, id);
	run_for(scene, 200);
	deliver(scene, frame);
	assert_int_equal(scene->count, 0);
	assert_int_equal(sqlite3_exec(stalling, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(stalling);
	run_until_told(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_AGENT_OVERLOADED);
	assert_string_equal(scene->results[0].request_id, id);
	run_until(scene, 4);
	free(frame);
}

/* What was told of one that is not recorded is dropped with its exp: by a clock that was set back since it is as good as expired. */
static void test_nothing_from_before_a_dropped_refusal(void **state)
{
	struct scene *scene = *state;
	char id[UUID_SIZE], *frame = deliver_one_too_many(scene, id);
	run_until_told(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_AGENT_OVERLOADED);
	run_until(scene, 4);
	for (unsigned i = 0; i < 3; i++)
		ask(scene, (struct ask){ OP_CHECK, GOOD });
	clock_ahead_ms = 35000;
	ask(scene, (struct ask){ OP_CHECK, GOOD }); /* refused as well: behind it the first one is forgotten */
	clock_ahead_ms = 0;
	run_until(scene, 8);
	deliver(scene, frame);
	run_until(scene, 9);
	assert_string_equal(scene->results[8].request_id, id);
	assert_int_equal(scene->results[8].code, STATUS_REQUEST_EXPIRED);
	assert_int_equal(played.written, 0);
	assert_int_equal(ask_one(scene, (struct ask){ OP_UNLOCK })->code, STATUS_OK);
	assert_int_equal(played.written, 1);
	free(frame);
}

/* Refused before the directory is asked for anything; and told once the same bytes have expired, for no restart would know of it. */
static void test_a_journal_that_cannot_be_written(void **state)
{
	struct scene *scene = *state;
	struct rlimit before;
	unsigned asked = 1;
	stop_writing(&before);
	ask(scene, (struct ask){ OP_LOOKUP });
	while (journal_writable(scene->journal))
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_int_equal(played.located, 1);
	for (int op = OP_RESET; op <= OP_POLICY; op++)
		if (op != OP_VERIFY) {
			ask(scene, (struct ask){ op, op == OP_RESET || op == OP_CHANGE || op == OP_CHECK ? GOOD : NULL, .old_password = op == OP_CHANGE ? "Old-Marble-Step-7" : NULL });
			asked++;
		}
	run_for(scene, 1200);
	assert_int_equal(scene->count, 0);
	assert_int_equal(limits_in_flight(scene->limits), 0);
	clock_ahead_ms = 35000;
	run_until(scene, asked);
	for (unsigned i = 0; i < scene->count; i++)
		assert_int_equal(scene->results[i].code, STATUS_AGENT_JOURNAL);
	assert_int_equal(scene->count, asked);
	assert_int_equal(played.located, 1);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
}

/* Refused by an agent that ends before it could keep that: nobody was told, and the same bytes are as good as new. */
static void test_a_refusal_that_is_forgotten_was_not_told(void **state)
{
	struct scene *scene = *state;
	struct rlimit before;
	stop_writing(&before);
	ask(scene, (struct ask){ OP_RESET, GOOD });
	while (journal_writable(scene->journal))
		event_base_loop(scene->base, EVLOOP_ONCE);
	run_for(scene, 200);
	assert_int_equal(scene->count, 0);
	close_scene(scene);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	open_scene(scene);
	assert_int_equal(scene->count, 0);
	ask_again(scene);
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_OK);
	assert_int_equal(played.written, 1);
}

/* The disk has taken nothing of it, and takes the next. */
static void ask_at_a_full_disk(struct scene *scene, struct ask question)
{
	struct rlimit before;
	stop_writing(&before);
	ask(scene, question);
	while (journal_writable(scene->journal))
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	journal_set_number(scene->journal, "probe", 1);
	run_until(scene, 1);
}

/* "Nothing was changed" would be false. */
static void test_what_was_done_before_is_no_failure(void **state)
{
	int64_t now_s = clock_now_ms() / 1000;
	played.written_at_s = now_s - 2;
	played.right = GOOD;
	ask_at_a_full_disk(*state, (struct ask){ OP_RESET, GOOD, .first_iat = now_s - 5 });
	assert_int_equal(((struct scene *)*state)->results[0].code, STATUS_OUTCOME_UNKNOWN);
	assert_int_equal(played.written, 0);
}

/* The disk takes it again: what waits is told soon, and is told the same after a restart. */
static void test_a_refusal_is_told_when_the_disk_is_well(void **state)
{
	struct scene *scene = *state;
	ask_at_a_full_disk(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(scene->results[0].code, STATUS_AGENT_JOURNAL);
	close_scene(scene);
	open_scene(scene);
	ask_again(scene);
	run_until(scene, 2);
	assert_int_equal(scene->results[1].code, STATUS_REQUEST_EXPIRED);
	assert_int_equal(played.written, 0);
}

/* A frame that is hours ahead, and whose refusal cannot be recorded, keeps nobody out after the next start. */
static void test_what_is_ahead_keeps_nobody_out(void **state)
{
	struct scene *scene = *state;
	struct rlimit before;
	char id[UUID_SIZE];
	AUTO_FREE char *frame = build_frame(OP_UNLOCK, 3600, id);
	stop_writing(&before);
	deliver(scene, frame);
	while (journal_writable(scene->journal))
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	journal_set_number(scene->journal, "probe", 1);
	while (!journal_writable(scene->journal))
		event_base_loop(scene->base, EVLOOP_ONCE);
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(ask_one(scene, (struct ask){ OP_UNLOCK })->code, STATUS_OK);
}

/* What the journal has forgotten has expired, even by a clock that was set back since. */
static void test_nothing_from_before_what_is_forgotten(void **state)
{
	struct scene *scene = *state;
	int64_t now_s = clock_now_ms() / 1000;
	journal_set_number(scene->journal, "forgotten_exp", now_s + 20);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	journal_set_number(scene->journal, "forgotten_exp", now_s + 40);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_REQUEST_EXPIRED);
	assert_int_equal(played.located, 1);
}

static void test_ahead_of_its_time(void **state)
{
	struct scene *scene = *state;
	char id[UUID_SIZE], *frame = build_frame(OP_UNLOCK, 80000, id);
	deliver(scene, frame);
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_REQUEST_NOT_YET_VALID);
	assert_true(journal_find(scene->journal, id)->exp > clock_now_ms() / 1000 + 79000);
	free(frame);
	frame = build_frame(OP_UNLOCK, 90000, id);
	deliver(scene, frame);
	assert_int_equal(scene->count, 1);
	assert_null(journal_find(scene->journal, id));
	free(frame);
}

/* The second reads before the first has written: it must read again, or its intent would hold the record from before. */
static void test_one_at_a_time_for_one_user(void **state)
{
	struct scene *scene = *state;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	ask(scene, (struct ask){ OP_RESET, GOOD });
	run_until(scene, 2);
	assert_int_equal(played.written, 2);
	assert_int_equal(played.located, 3);
	assert_int_equal(entry_of(scene, &scene->results[0])->password_version, 2);
	assert_int_equal(entry_of(scene, &scene->results[1])->password_version, 3);
}

/* The second waits for the first, whose outcome the disk does not take: at its exp it ends all the same, and holds no place. A moment before, on a disk that is well, it has its turn. */
static void test_no_turn_before_it_expires(void **state)
{
	for (unsigned full = 0; full < 2; full++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		struct scene *scene = *state;
		struct rlimit before;
		played.stepwise = true;
		ask(scene, (struct ask){ OP_RESET, GOOD });
		free(lose_channel(scene, 0, 30));
		clock_ahead_ms = full ? 28000 : 20000; /* a second is left at least */
		while (played.written == 0)
			event_base_loop(scene->base, EVLOOP_ONCE);
		assert_int_equal(limits_in_flight(scene->limits), 2);
		if (!full) {
			run_until(scene, 2);
			assert_int_equal(scene->results[0].code, STATUS_OK);
			assert_int_equal(scene->results[1].code, STATUS_OK);
			assert_int_equal(played.written, 2);
			continue;
		}
		stop_writing(&before);
		run_until(scene, 1);
		assert_int_equal(scene->count, 1);
		assert_int_equal(scene->results[0].code, STATUS_REQUEST_EXPIRED);
		assert_int_equal(limits_in_flight(scene->limits), 1);
		assert_int_equal(played.written, 1);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	}
}

static void settle(struct scene *scene, enum writing writing, enum status code)
{
	played.writing = writing;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	run_until(scene, 1);
	assert_int_equal(scene->count, 2);
	assert_int_equal(scene->results[0].code, STATUS_SETTLING);
	assert_string_equal(status_code(scene->results[1].code), status_code(code));
	assert_string_equal(entry_of(scene, &scene->results[1])->code, status_code(code));
	assert_int_equal(entry_of(scene, &scene->results[1])->counts, code != STATUS_DIRECTORY_TIMEOUT);
	assert_int_equal(played.written, 1);
}

static void test_lost_answer_applied(void **state) { settle(*state, WRITE_LOST_APPLIED, STATUS_OK); }
static void test_lost_answer_of_a_stalled_server(void **state) { settle(*state, WRITE_STALLED, STATUS_OK); }
static void test_lost_answer_not_applied(void **state) { settle(*state, WRITE_LOST, STATUS_DIRECTORY_TIMEOUT); }
static void test_lost_answer_replaced(void **state) { settle(*state, WRITE_REPLACED, STATUS_OUTCOME_UNKNOWN); }

/* One write since the intent, through the same server, after our connection was lost: that it is not ours the password says, and so that ours was not done. */
static void test_lost_answer_and_a_later_write(void **state)
{
	played.clock_ahead_s = 40;
	played.written_at_s = clock_now_ms() / 1000 + 40 + 10;
	played.right = "somebody-elses";
	settle(*state, WRITE_LOST_APPLIED, STATUS_DIRECTORY_TIMEOUT);
	assert_int_equal(played.verified, 1);
}

/* Likewise where its time could be ours. */
static void test_lost_answer_and_anothers_single_write(void **state)
{
	played.right = "somebody-elses";
	settle(*state, WRITE_LOST_APPLIED, STATUS_DIRECTORY_TIMEOUT);
	assert_int_equal(played.verified, 1);
}

/* Nor where the agent's clock is set back meanwhile, and no bind may be made: what is younger than the loss stays so. */
static void test_lost_answer_and_a_clock_that_is_set_back(void **state)
{
	struct scene *scene = *state;
	played.alice.policy.lockout_threshold = 1;
	played.clock_ahead_s = 40;
	played.written_at_s = clock_now_ms() / 1000 + 40 + 10;
	played.writing = WRITE_LOST_APPLIED;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	run_until_told(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_SETTLING);
	clock_ahead_ms -= 60000;
	played.clock_ahead_s += 60;
	run_until(scene, 1);
	assert_int_equal(scene->results[1].code, STATUS_OUTCOME_UNKNOWN);
	assert_int_equal(played.verified, 0);
}

/* What is told of the directory is not that answer where the write was done in spite of it. */
static void test_an_answer_that_left_it_open(void **state)
{
	played.left_open = true;
	settle(*state, WRITE_LOST_APPLIED, STATUS_OK);
	assert_int_equal(((struct scene *)*state)->results[1].ldap_result, -1);
	assert_int_equal(teardown(state) | setup(state), 0);
	played.left_open = true;
	played.writing = WRITE_LOST;
	ask(*state, (struct ask){ OP_RESET, GOOD });
	run_until(*state, 1);
	const struct result *result = &((struct scene *)*state)->results[1];
	assert_int_equal(result->code, STATUS_DIRECTORY_BUSY);
	assert_int_equal(result->ldap_result, 52);
}

static void run_out_of_timers(void) { no_timers = true; }

/* Nor is a write without an end where there is no memory for a timer. */
static void test_lost_answer_without_a_timer(void **state)
{
	static const struct { enum writing writing; enum status code; } rows[] = { { WRITE_LOST_APPLIED, STATUS_OK }, { WRITE_LOST, STATUS_DIRECTORY_TIMEOUT }, { WRITE_REPLACED, STATUS_OUTCOME_UNKNOWN } };
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		played.recheck_with = run_out_of_timers;
		settle(*state, rows[i].writing, rows[i].code);
		no_timers = false;
	}
}

/* A stalled server does it long after the connection is gone. */
static void test_lost_answer_applied_late(void **state)
{
	played.written_at_s = clock_now_ms() / 1000 + 10;
	settle(*state, WRITE_LOST_APPLIED, STATUS_OK);
	assert_int_equal(played.verified, 1);
}

static void test_lost_answer_and_anothers_write_of_the_same(void **state)
{
	played.right = GOOD;
	settle(*state, WRITE_REPLACED, STATUS_OK);
	assert_int_equal(played.verified, 1);
}

/* A wrong password is about the record that was read only where that stands behind the bind as before it, and the user with it: else the record has to do. */
static void test_read_again_behind_a_wrong_bind(void **state)
{
	static const struct { enum behind_bind behind; enum status code; } rows[] = {
		{ BEHIND_SAME, STATUS_DIRECTORY_TIMEOUT }, { BEHIND_REWRITTEN, STATUS_OK }, { BEHIND_RENAMED, STATUS_OK }, { BEHIND_UNREADABLE, STATUS_OK }, { BEHIND_LOST, STATUS_OK },
		{ BEHIND_NO_SUCH_USER, STATUS_OK },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		((struct scene *)*state)->settings.settling_delay_ms = 100;
		played.right = "somebody-elses";
		played.behind_bind = rows[i].behind;
		settle(*state, WRITE_LOST_APPLIED, rows[i].code);
		assert_int_equal(played.verified, 1);
	}
}

/* The server did not say whether the password is right: the record alone has to do, and nothing is tried again. */
static void test_lost_answer_and_a_mute_bind(void **state)
{
	played.mute = true;
	settle(*state, WRITE_REPLACED, STATUS_OUTCOME_UNKNOWN);
	assert_int_equal(played.verified, 1);
}

static void test_what_a_bind_says(void **state)
{
	static const struct { enum status says, code; } rows[] = {
		{ STATUS_CREDENTIAL_MUST_CHANGE, STATUS_OK }, { STATUS_CREDENTIAL_EXPIRED, STATUS_OK }, { STATUS_USER_LOCKED, STATUS_OUTCOME_UNKNOWN }, { STATUS_USER_DISABLED, STATUS_OUTCOME_UNKNOWN },
		{ STATUS_USER_LOGON_HOURS, STATUS_OUTCOME_UNKNOWN }, { STATUS_DIRECTORY_BUSY, STATUS_OUTCOME_UNKNOWN },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		((struct scene *)*state)->settings.settling_delay_ms = 100;
		played.says = rows[i].says;
		settle(*state, WRITE_REPLACED, rows[i].code);
		assert_int_equal(played.verified, 1);
	}
}

/* Nobody is locked out for the sake of knowing. */
static void test_no_bind_close_to_a_lockout(void **state)
{
	static const struct { unsigned threshold; int bad_passwords; bool locked; unsigned verified; } rows[] = {
		{ 0, 100, false, 1 }, { 5, 2, false, 1 }, { 5, 3, false, 0 }, { 5, -1, false, 1 }, { 3, 1, false, 1 }, { 3, 2, false, 0 }, { 2, 0, false, 1 }, { 2, 1, false, 0 }, { 1, 0, false, 0 }, { 0, 0, true, 0 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		((struct scene *)*state)->settings.settling_delay_ms = 100;
		played.alice.policy.lockout_threshold = rows[i].threshold;
		played.alice.bad_passwords = rows[i].bad_passwords;
		played.alice.locked = rows[i].locked;
		played.right = GOOD;
		settle(*state, WRITE_REPLACED, rows[i].verified ? STATUS_OK : STATUS_OUTCOME_UNKNOWN);
		assert_int_equal(played.verified, rows[i].verified);
	}
}

static void test_no_bind_by_a_policy_that_is_not_known(void **state)
{
	for (int bad_passwords = -1; bad_passwords <= 1; bad_passwords++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		played.alice.policy = (struct password_policy){ .source = POLICY_UNKNOWN };
		played.alice.bad_passwords = bad_passwords;
		settle(*state, WRITE_LOST_APPLIED, STATUS_OK);
		assert_int_equal(played.verified, bad_passwords == 0);
	}
}

/* Ours, and somebody else's through the same server over it, within the same seconds. */
static void test_lost_answer_and_two_writes(void **state)
{
	played.second_writer = true;
	settle(*state, WRITE_LOST_APPLIED, STATUS_OUTCOME_UNKNOWN);
}

/* The version alone says so where the bind says nothing. */
static void test_lost_answer_and_two_writes_and_a_mute_bind(void **state)
{
	played.mute = played.second_writer = true;
	settle(*state, WRITE_LOST_APPLIED, STATUS_OUTCOME_UNKNOWN);
	assert_int_equal(played.verified, 1);
}

static void test_lost_answer_applied_by_a_clock_of_its_own(void **state)
{
	played.clock_ahead_s = 40;
	played.written_at_s = clock_now_ms() / 1000 + 40;
	settle(*state, WRITE_LOST_APPLIED, STATUS_OK);
}

/* The delay counts from when the server can be read again. */
static void test_lost_answer_of_a_server_that_comes_back(void **state)
{
	int64_t began = clock_monotonic_us();
	played.unreadable = 10; /* a reading every 100 ms: a second */
	settle(*state, WRITE_LOST, STATUS_DIRECTORY_TIMEOUT);
	assert_true(clock_monotonic_us() - began >= 1150000);
}

/* Or from when the modify can come no more. */
static void test_lost_answer_on_a_connection_that_stands(void **state)
{
	int64_t began = clock_monotonic_us();
	played.retiring_until_us = began + 1000000;
	settle(*state, WRITE_LOST, STATUS_DIRECTORY_TIMEOUT);
	assert_true(clock_monotonic_us() - began >= 1150000);
}

static void test_skew_is_seen_while_reading(void **state)
{
	struct scene *scene = *state;
	played.clock_ahead_s = -70;
	assert_refused(scene, (struct ask){ OP_RESET, GOOD }, STATUS_AGENT_CLOCK_SKEW);
}

static void test_others_are_busy_while_one_is_settled(void **state)
{
	struct scene *scene = *state;
	played.writing = WRITE_LOST;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	ask(scene, (struct ask){ OP_RESET, GOOD });
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_SETTLING);
	assert_int_equal(scene->results[1].code, STATUS_USER_BUSY);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_USER_BUSY);
	run_until(scene, 3);
	assert_int_equal(played.written, 1);
}

static void crash_in_settling(struct scene *scene, enum writing writing)
{
	played.writing = writing;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	while (scene->count == 0)
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_int_equal(scene->results[0].code, STATUS_SETTLING);
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(requests_settling(scene->requests), 1);
}

static void test_intent_of_a_crash_is_settled(void **state)
{
	struct scene *scene = *state;
	crash_in_settling(scene, WRITE_LOST_APPLIED);
	run_until(scene, 1);
	assert_int_equal(scene->results[1].code, STATUS_OK);
	assert_string_equal(scene->results[1].request_id, scene->results[0].request_id);
	assert_int_equal(played.written, 1);
}

/* Whose password it is can be seen as soon as the service has delivered the request again. */
static void test_crash_and_delivered_again(void **state)
{
	struct scene *scene = *state;
	played.right = "somebody-elses";
	crash_in_settling(scene, WRITE_LOST_APPLIED);
	ask_again(scene);
	run_until(scene, 1);
	assert_string_equal(status_code(scene->results[scene->count - 1].code), "directory.unavailable");
	assert_int_equal(played.verified, 1);
	assert_string_equal(played.tried_password, GOOD);
	assert_int_equal(played.written, 1);
	/* The row has it. */
	assert_int_equal(entry_of(scene, &scene->results[0])->counts, 0);
}

static void test_crash_and_replaced_and_delivered_again(void **state)
{
	struct scene *scene = *state;
	crash_in_settling(scene, WRITE_REPLACED);
	played.right = GOOD;
	ask_again(scene);
	run_until(scene, 1);
	assert_int_equal(scene->results[scene->count - 1].code, STATUS_OK);
	assert_int_equal(played.verified, 1);
}

/* Other bytes with its id bring no password. */
static void test_crash_and_another_frame(void **state)
{
	struct scene *scene = *state;
	played.right = GOOD;
	crash_in_settling(scene, WRITE_REPLACED);
	char request_id[UUID_SIZE];
	strcpy(request_id, scene->results[0].request_id);
	ask(scene, (struct ask){ OP_RESET, GOOD, .request_id = request_id });
	run_until(scene, 2);
	assert_int_equal(played.verified, 0);
	assert_int_equal(scene->results[scene->count - 1].code, STATUS_OUTCOME_UNKNOWN);
}

static void end_behind_a_bind(struct scene *scene, enum journal_state marked)
{
	while (scene->ended == 0 && (scene->count == 0 || journal_find(scene->journal, scene->results[0].request_id)->state != marked))
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_int_equal(scene->ended, 0);
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(requests_settling(scene->requests), 1);
}

/* What the bind said is not guessed: the password is tried once more. */
static void crash_behind_the_bind(struct scene *scene, enum writing writing, const char *right, const char *code)
{
	played.writing = writing;
	played.right = right;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	end_behind_a_bind(scene, JOURNAL_SETTLING);
	unsigned verified = played.verified;
	ask_again(scene);
	run_until(scene, 1);
	assert_string_equal(status_code(scene->results[scene->count - 1].code), code);
	assert_int_equal(played.verified, verified + 1);
}

static void test_crash_behind_the_bind(void **state) { crash_behind_the_bind(*state, WRITE_REPLACED, GOOD, "ok"); }
static void test_crash_behind_the_bind_beside_one_write(void **state) { crash_behind_the_bind(*state, WRITE_LOST_APPLIED, GOOD, "ok"); }
static void test_crash_behind_the_bind_beside_anothers_write(void **state) { crash_behind_the_bind(*state, WRITE_LOST_APPLIED, "somebody-elses", "directory.unavailable"); }

/* And never a third time, whatever ends. */
static void test_crash_behind_two_binds(void **state)
{
	struct scene *scene = *state;
	played.writing = WRITE_LOST_APPLIED;
	played.right = GOOD;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	end_behind_a_bind(scene, JOURNAL_SETTLING);
	ask_again(scene);
	end_behind_a_bind(scene, JOURNAL_SETTLING_AGAIN);
	unsigned verified = played.verified;
	ask_again(scene);
	run_until(scene, 1);
	assert_int_equal(scene->results[scene->count - 1].code, STATUS_OUTCOME_UNKNOWN);
	assert_int_equal(played.verified, verified);
}

/* It may have been a wrong one, and counts as such. */
static void test_crash_behind_a_bind_counts(void **state)
{
	struct scene *scene = *state;
	scene->settings.wrong_per_user_hour = 1;
	played.writing = WRITE_LOST_APPLIED;
	played.right = GOOD;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	end_behind_a_bind(scene, JOURNAL_SETTLING);
	unsigned verified = played.verified;
	ask_again(scene);
	run_until(scene, 1);
	assert_int_equal(played.verified, verified);
	assert_int_equal(scene->results[scene->count - 1].code, STATUS_OUTCOME_UNKNOWN);
}

/* Nobody delivers it again: the record alone has to do, and one that is not from the moment of the intent does not. */
static void test_crash_and_anothers_later_write(void **state)
{
	struct scene *scene = *state;
	played.written_at_s = clock_now_ms() / 1000 + 10;
	crash_in_settling(scene, WRITE_LOST_APPLIED);
	run_until(scene, 1);
	assert_int_equal(scene->results[scene->count - 1].code, STATUS_OUTCOME_UNKNOWN);
	assert_int_equal(played.verified, 0);
}

/* A server that tells no time (flavor ldap), of a user for whom no bind may be made: the record alone has to do. */
static void play_without_a_clock(int64_t written_ahead_s)
{
	played.clock_ahead_s = INT64_MIN;
	played.alice.policy = (struct password_policy){ .source = POLICY_UNKNOWN };
	played.alice.bad_passwords = -1;
	played.written_at_s = clock_now_ms() / 1000 + written_ahead_s;
}

static const struct { int64_t written_ahead_s; enum status code; } without_a_clock[] = { { 0, STATUS_OK }, { 4, STATUS_OK }, { 10, STATUS_OUTCOME_UNKNOWN }, { 60, STATUS_OUTCOME_UNKNOWN } };

/* Another agent, of the same account, has set another password a while after our connection was lost. */
static void test_lost_answer_of_a_server_without_a_clock(void **state)
{
	for (size_t i = 0; i < sizeof without_a_clock / sizeof without_a_clock[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		play_without_a_clock(without_a_clock[i].written_ahead_s);
		settle(*state, WRITE_LOST_APPLIED, without_a_clock[i].code);
		assert_int_equal(played.verified, 0);
	}
}

/* However long the agent was away. */
static void test_crash_beside_a_server_without_a_clock(void **state)
{
	for (size_t i = 0; i < sizeof without_a_clock / sizeof without_a_clock[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		struct scene *scene = *state;
		play_without_a_clock(without_a_clock[i].written_ahead_s);
		played.writing = WRITE_LOST_APPLIED;
		ask(scene, (struct ask){ OP_RESET, GOOD });
		while (scene->count == 0)
			event_base_loop(scene->base, EVLOOP_ONCE);
		close_scene(scene);
		clock_ahead_ms = 100000;
		open_scene(scene);
		run_until(scene, 1);
		assert_int_equal(scene->results[scene->count - 1].code, without_a_clock[i].code);
		assert_int_equal(played.verified, 0);
	}
}

/* Tried before -------------------------------------------------------------------------------------------------------------------------- */

static void test_another_agent_has_done_it(void **state)
{
	struct scene *scene = *state;
	int64_t now_s = clock_now_ms() / 1000;
	static const struct {
		const char *right;
		int written_ago_s, first_ago_s;
		bool must_change, early;
		enum status says;
		unsigned verified, written;
	} rows[] = {
		{ GOOD, 2, 5, false, false, STATUS_OK, 1, 0 },
		{ GOOD, 2, 0, false, true, STATUS_OK, 1, 0 },                              /* from before the start: the journal may have been lost */
		{ GOOD, 2, 0, false, false, STATUS_OK, 0, 1 },                             /* the first time */
		{ "another", 2, 5, false, false, STATUS_OK, 1, 1 },
		{ GOOD, 3600, 5, false, false, STATUS_OK, 0, 1 },                          /* written before */
		{ GOOD, 3600, 86400, false, false, STATUS_OK, 0, 1 },                      /* no operation lasts so long */
		{ GOOD, 2, 5, true, false, STATUS_OK, 1, 1 },                              /* the password, and not that it must be changed */
		{ GOOD, 2, 5, true, false, STATUS_CREDENTIAL_MUST_CHANGE, 1, 0 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		scene = *state;
		played.right = rows[i].right;
		played.says = rows[i].says;
		played.written_at_s = now_s - rows[i].written_ago_s;
		const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD, .must_change = rows[i].must_change, .early = rows[i].early, .first_iat = rows[i].first_ago_s ? now_s - rows[i].first_ago_s : 0 });
		assert_int_equal(result->code, STATUS_OK);
		assert_int_equal(played.verified, rows[i].verified);
		assert_int_equal(played.written, rows[i].written);
		assert_int_equal(entry_of(scene, result)->counts, rows[i].written);
	}
}

/* Whoever owns the channel has ended it towards the service, which has asked another agent, and brings the request here behind that. */
static void test_held_up_until_another_agent_has_done_it(void **state)
{
	static const struct { int64_t failover_after; unsigned held_s, written; } rows[] = { { 1, 2, 0 }, { 5, 2, 1 }, { 0, 2, 1 }, { 1, 0, 1 } };
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		played.right = GOOD;
		played.written_at_s = clock_now_ms() / 1000;
		const struct result *result = ask_one(*state, (struct ask){ OP_RESET, GOOD, .failover_after = rows[i].failover_after, .held_s = rows[i].held_s });
		assert_int_equal(result->code, STATUS_OK);
		assert_int_equal(played.written, rows[i].written);
	}
}

/* Else whoever has the service's key could try a password as often as he likes, where the directory locks nobody. */
static void test_one_wrong_one_an_hour_whatever_is_allowed(void **state)
{
	struct scene *scene = *state;
	int64_t now_s = clock_now_ms() / 1000;
	scene->settings.wrong_per_user_hour = 0;
	struct limits_settings limits;
	settings_limits(&scene->settings, &limits);
	limits_reconfigure(scene->limits, &limits);
	played.written_at_s = now_s - 2;
	played.right = "another";
	for (int i = 0; i < 3; i++)
		(void)ask_one(scene, (struct ask){ OP_RESET, "Short1!", .first_iat = now_s - 5 });
	assert_int_equal(played.verified, 1);
	/* Nor by one that starts the agent anew. */
	close_scene(scene);
	open_scene(scene);
	limits_reconfigure(scene->limits, &limits);
	(void)ask_one(scene, (struct ask){ OP_RESET, "Short1!", .first_iat = now_s - 5 });
	assert_int_equal(played.verified, 1);
	assert_int_equal(played.written, 0);
}

/* Where the row cannot say that the bind was made there is none, for after a crash it would be made again; and nothing is told on a guess while it is waited for. */
static void bind_on_a_full_disk(struct scene *scene, enum writing writing)
{
	struct rlimit before;
	scene->settings.settling_limit_ms = 8000;
	played.right = "somebody-elses";
	crash_in_settling(scene, writing);
	stop_writing(&before);
	ask_again(scene);
	for (int i = 0; i < 2; i++)
		run_for(scene, 500);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(played.verified, 0);
	run_until(scene, 1);
	assert_int_equal(played.verified, 1);
	assert_int_not_equal(scene->results[scene->count - 1].code, STATUS_OK);
}

static void test_bind_on_a_full_disk(void **state) { bind_on_a_full_disk(*state, WRITE_LOST_APPLIED); }
static void test_bind_on_a_full_disk_of_a_replaced_one(void **state) { bind_on_a_full_disk(*state, WRITE_REPLACED); }

/* What was done before would be too recent now. */
static void test_no_success_becomes_a_refusal(void **state)
{
	struct scene *scene = *state;
	int64_t now_s = clock_now_ms() / 1000;
	played.alice.policy.min_age_s = 86400;
	played.alice.pwd_last_set_s = played.written_at_s = now_s - 2;
	played.right = GOOD;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD, .first_iat = now_s - 5 })->code, STATUS_OK);
	assert_int_equal(played.written, 0);
	played.right = "another";
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD, .first_iat = now_s - 5 })->code, STATUS_POLICY_TOO_RECENT);
	/* One wrong one an hour. */
	assert_int_equal(played.verified, 2);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD, .first_iat = now_s - 5 })->code, STATUS_OUTCOME_UNKNOWN);
	assert_int_equal(played.verified, 2);
	/* And where nobody has written since, none is wanted. */
	played.alice.pwd_last_set_s = played.written_at_s = now_s - 3600;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD, .first_iat = now_s - 5 })->code, STATUS_POLICY_TOO_RECENT);
	assert_int_equal(played.written, 0);
}

/* Another agent may have written, and no bind may tell: not written once more, nor called refused. */
static void test_nobody_can_tell_what_was_done_before(void **state)
{
	int64_t now_s = clock_now_ms() / 1000;
	static const struct {
		enum policy_source policy;
		int bad_passwords;
		enum status says, code;
		unsigned verified, written;
	} rows[] = {
		{ POLICY_DOMAIN, 0, STATUS_OK, STATUS_OK, 1, 0 }, { POLICY_DOMAIN, 3, STATUS_OK, STATUS_OUTCOME_UNKNOWN, 0, 0 }, { POLICY_DOMAIN, 0, STATUS_USER_LOGON_HOURS, STATUS_OUTCOME_UNKNOWN, 1, 0 },
		{ POLICY_UNKNOWN, 0, STATUS_OK, STATUS_OK, 1, 0 }, { POLICY_UNKNOWN, 1, STATUS_OK, STATUS_OUTCOME_UNKNOWN, 0, 0 }, { POLICY_UNKNOWN, -1, STATUS_OK, STATUS_OUTCOME_UNKNOWN, 0, 0 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		for (unsigned since = 0; since < 2; since++) {
			assert_int_equal(teardown(state) | setup(state), 0);
			played.alice.policy.source = rows[i].policy;
			played.alice.policy.lockout_threshold = 5;
			played.alice.bad_passwords = rows[i].bad_passwords;
			played.says = rows[i].says;
			played.right = GOOD;
			played.written_at_s = now_s - (since ? 2 : 3600);
			const struct result *result = ask_one(*state, (struct ask){ OP_RESET, GOOD, .first_iat = now_s - 5 });
			assert_int_equal(result->code, since ? rows[i].code : STATUS_OK);
			assert_int_equal(played.verified, since ? rows[i].verified : 0);
			assert_int_equal(played.written, since ? rows[i].written : 1);
			assert_int_equal(entry_of(*state, result)->counts, played.written);
		}
	}
}

static struct scene *scene_with_lost_journal(void **state, int64_t lost_ago_s)
{
	assert_int_equal(teardown(state) | setup(state), 0);
	struct scene *scene = *state;
	journal_set_number(scene->journal, REQUESTS_LOST_S, clock_now_ms() / 1000 - lost_ago_s);
	close_scene(scene);
	open_scene(scene);
	return scene;
}

/* This agent may have, and its journal was lost: the same. A minute behind that nobody has, for no request is issued further ahead. */
static void test_what_a_lost_journal_knew(void **state)
{
	static const struct {
		int64_t lost_ago_s;
		enum shown shown;
		int bad_passwords;
		const char *right;
		enum status says, code;
		unsigned verified, written;
	} rows[] = {
		{ 0, RECORD_SHOWN, 0, GOOD, STATUS_OK, STATUS_OK, 1, 0 }, { 0, RECORD_SHOWN, 0, "another", STATUS_OK, STATUS_OK, 1, 1 }, { 0, RECORD_SHOWN, 3, GOOD, STATUS_OK, STATUS_OUTCOME_UNKNOWN, 0, 0 },
		{ 0, RECORD_SHOWN, 0, GOOD, STATUS_USER_LOGON_HOURS, STATUS_OUTCOME_UNKNOWN, 1, 0 }, { 50, RECORD_SHOWN, 3, GOOD, STATUS_OK, STATUS_OUTCOME_UNKNOWN, 0, 0 },
		{ 70, RECORD_SHOWN, 3, GOOD, STATUS_OK, STATUS_OK, 0, 1 }, { 0, RECORD_HIDDEN, 0, GOOD, STATUS_OK, STATUS_OK, 1, 0 }, { 0, RECORD_HIDDEN, 0, "another", STATUS_OK, STATUS_OUTCOME_UNKNOWN, 1, 0 },
		{ 70, RECORD_HIDDEN, 0, "another", STATUS_OK, STATUS_OK, 0, 1 }, { 0, RECORD_ABSENT, 0, "another", STATUS_OK, STATUS_OK, 0, 1 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct scene *scene = scene_with_lost_journal(state, rows[i].lost_ago_s);
		int64_t now_s = clock_now_ms() / 1000;
		played.alice.policy.lockout_threshold = 5;
		played.alice.bad_passwords = rows[i].bad_passwords;
		played.shown = rows[i].shown;
		played.says = rows[i].says;
		played.right = rows[i].right;
		played.written_at_s = now_s - 2;
		assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, rows[i].code);
		assert_int_equal(played.verified, rows[i].verified);
		assert_int_equal(played.written, rows[i].written);
	}
}

/* "Nothing was changed" is not told where nobody has looked: of what ends before that, and of what comes when it has expired. */
static void test_an_end_behind_a_lost_journal(void **state)
{
	static const struct { int64_t lost_ago_s; enum operation op; bool disabled, late; enum status code; } rows[] = {
		{ 0, OP_RESET, true, false, STATUS_OUTCOME_UNKNOWN }, { 70, OP_RESET, true, false, STATUS_USER_DISABLED }, { 0, OP_CHECK, true, false, STATUS_USER_DISABLED },
		{ 70, OP_RESET, false, true, STATUS_OUTCOME_UNKNOWN }, { 200, OP_RESET, false, true, STATUS_REQUEST_EXPIRED },
		{ 70, OP_CHECK, false, true, STATUS_REQUEST_EXPIRED }, { 70, OP_UNLOCK, false, true, STATUS_OUTCOME_UNKNOWN },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct scene *scene = scene_with_lost_journal(state, rows[i].lost_ago_s);
		int64_t now_s = clock_now_ms() / 1000;
		played.written_at_s = now_s - 3600;
		if (rows[i].disabled)
			played.alice.uac |= UAC_ACCOUNTDISABLE;
		if (rows[i].late)
			journal_set_number(scene->journal, "forgotten_exp", now_s + 40);
		const struct result *result = ask_one(scene, (struct ask){ rows[i].op, rows[i].op == OP_UNLOCK ? NULL : GOOD });
		assert_string_equal(status_code(result->code), status_code(rows[i].code));
		assert_true(result->code != STATUS_OUTCOME_UNKNOWN || (!result->reason && !result->retry_after));
		assert_int_equal(played.written, 0);
	}
}

/* Its write comes from another controller between the reading and the write, which is refused for it: a success may not be told as that. */
static void test_a_refusal_behind_a_lost_journal(void **state)
{
	static const struct { enum status says; int64_t lost_ago_s; enum outcome outcome; } rows[] = {
		{ STATUS_OK, 0, OUTCOME_APPLIED }, { STATUS_USER_LOGON_HOURS, 0, OUTCOME_UNKNOWN }, { STATUS_USER_LOGON_HOURS, 70, OUTCOME_REFUSED },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct scene *scene = scene_with_lost_journal(state, rows[i].lost_ago_s);
		int64_t now_s = clock_now_ms() / 1000;
		played.written_at_s = now_s - 3600;
		played.recheck_finds_s = now_s - 2;
		played.writing = WRITE_REJECTED;
		played.right = GOOD;
		played.says = rows[i].says;
		const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
		assert_int_equal(status_outcome(result->code), rows[i].outcome);
		assert_int_equal(played.written, 1);
	}
}

/* Nor is it written once more where the record is seconds old, or cannot be read: a right bind says enough, a wrong one nothing. Without another agent that is no matter, nor where there is none. */
static void test_a_record_that_is_young_or_cannot_be_read(void **state)
{
	int64_t now_s = clock_now_ms() / 1000;
	static const struct {
		enum shown shown;
		const char *right;
		bool first, early;
		enum status code;
		unsigned verified, written;
	} rows[] = {
		{ RECORD_YOUNG, GOOD, true, false, STATUS_OK, 1, 0 }, { RECORD_YOUNG, "another", true, false, STATUS_OUTCOME_UNKNOWN, 1, 0 },
		{ RECORD_YOUNG, GOOD, false, true, STATUS_OK, 1, 0 }, { RECORD_YOUNG, "another", false, true, STATUS_OK, 1, 1 },
		{ RECORD_YOUNG, "another", false, false, STATUS_OK, 0, 1 },
		{ RECORD_HIDDEN, GOOD, true, false, STATUS_OK, 1, 0 }, { RECORD_HIDDEN, "another", true, false, STATUS_OUTCOME_UNKNOWN, 1, 0 },
		{ RECORD_HIDDEN, "another", false, true, STATUS_OK, 0, 1 }, { RECORD_HIDDEN, "another", false, false, STATUS_OK, 0, 1 },
		{ RECORD_ABSENT, "another", true, false, STATUS_OK, 0, 1 }, { RECORD_ABSENT, "another", false, false, STATUS_OK, 0, 1 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		played.shown = rows[i].shown;
		played.right = rows[i].right;
		played.written_at_s = now_s - 2;
		const struct result *result = ask_one(*state, (struct ask){ OP_RESET, GOOD, .early = rows[i].early, .first_iat = rows[i].first ? now_s - 5 : 0 });
		assert_string_equal(status_code(result->code), status_code(rows[i].code));
		assert_int_equal(played.verified, rows[i].verified);
		assert_int_equal(played.written, rows[i].written);
	}
}

/* What was there before the intent has overtaken nobody, young or not; what is put there behind it has. */
static void test_a_young_record_is_no_overtaker(void **state)
{
	played.shown = RECORD_YOUNG;
	played.right = "another";
	played.written_at_s = clock_now_ms() / 1000 - 2;
	assert_int_equal(ask_one(*state, (struct ask){ OP_RESET, GOOD, .failover_after = 5 })->code, STATUS_OK);
	assert_int_equal(played.written, 1);
}

/* A young record in the intent settles nothing: another write within its second would look the same. */
static void test_lost_answer_beside_a_young_record(void **state)
{
	played.shown = RECORD_YOUNG;
	settle(*state, WRITE_LOST, STATUS_OUTCOME_UNKNOWN);
	const struct journal_entry *entry = entry_of(*state, &((struct scene *)*state)->results[1]);
	assert_int_equal(entry->password_version, 0);
	assert_int_equal(entry->password_originating_usn, 0);
}

/* The other agent's write comes by replication between our reading and our write. */
static void test_a_refusal_is_held_against_the_record(void **state)
{
	struct scene *scene = *state;
	int64_t now_s = clock_now_ms() / 1000;
	played.written_at_s = now_s - 3600;
	played.recheck_finds_s = now_s - 2;
	played.writing = WRITE_REJECTED;
	played.right = GOOD;
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD, .first_iat = now_s - 5 });
	assert_int_equal(result->code, STATUS_OK);
	assert_int_equal(result->ldap_result, -1);
	assert_int_equal(entry_of(scene, result)->counts, 0);
	assert_int_equal(played.written, 1);
	assert_int_equal(played.verified, 1);
	played.right = "another";
	played.written = 0;
	assert_int_equal(status_outcome(ask_one(scene, (struct ask){ OP_RESET, GOOD, .first_iat = now_s - 5 })->code), OUTCOME_REFUSED);
	assert_int_equal(played.verified, 2);
}

/* The channel has ended at the service alone: the agent that was asked instead writes while this one is about to. */
static void test_overtaken_by_another_agent(void **state)
{
	static const struct { enum operation op; int64_t failover_after; const char *right; enum status says, code; unsigned verified, written, twice; } rows[] = {
		{ OP_RESET, 4, GOOD, STATUS_OK, STATUS_OK, 1, 0 },
		{ OP_CHANGE, 4, GOOD, STATUS_OK, STATUS_OK, 1, 0 },
		{ OP_RESET, 4, "an administrator's", STATUS_OK, STATUS_OK, 1, 1 },
		{ OP_RESET, 4, "an administrator's", STATUS_OK, STATUS_OUTCOME_UNKNOWN, 1, 0, .twice = 1 },
		{ OP_RESET, 4, GOOD, STATUS_USER_LOCKED, STATUS_OUTCOME_UNKNOWN, 1, 0 },
		{ OP_RESET, 0, "an administrator's", STATUS_OK, STATUS_OK, 0, 1 },      /* there is nobody else */
		{ OP_UNLOCK, 4, "an administrator's", STATUS_OK, STATUS_OK, 0, 1 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		played.written_at_s = clock_now_ms() / 1000 - 3600;
		played.overtaken_at = 1;
		played.overtaken_twice = rows[i].twice;
		played.right = rows[i].right;
		played.says = rows[i].says;
		played.alice.locked = played.alice.lockout_time_set = rows[i].op == OP_UNLOCK;
		const struct result *result = ask_one(*state, (struct ask){ rows[i].op, rows[i].op != OP_UNLOCK ? GOOD : NULL, .old_password = rows[i].op == OP_CHANGE ? "Old-Marble-Step-1" : NULL, .failover_after = rows[i].failover_after });
		assert_string_equal(status_code(result->code), status_code(rows[i].code));
		assert_int_equal(played.verified, rows[i].verified);
		assert_int_equal(played.written, rows[i].written);
	}
}

/* One bind for a request: what it has shown before the write is not asked once more behind it. */
static void test_one_bind_before_and_behind_the_write(void **state)
{
	int64_t now_s = clock_now_ms() / 1000;
	static const struct { enum writing writing; bool anothers; enum status code; } rows[] = {
		{ WRITE_LOST_APPLIED, false, STATUS_OK }, { WRITE_REJECTED, false, STATUS_POLICY_HISTORY_OR_FILTER },
		{ WRITE_REJECTED, true, STATUS_OUTCOME_UNKNOWN }, /* a record that the bind was not about */
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		played.right = "another";
		played.written_at_s = now_s - 2;
		played.recheck_finds_s = rows[i].anothers ? now_s : 0;
		played.writing = rows[i].writing;
		assert_string_equal(status_code(ask_one(*state, (struct ask){ OP_RESET, GOOD, .first_iat = now_s - 5 })->code), status_code(rows[i].code));
		assert_int_equal(played.verified, 1);
		assert_int_equal(played.written, 1);
	}
}

/* Another server ---------------------------------------------------------------------------------------------------------------------- */

/* Lost on dc1, good on dc2: applied at once, and nobody hears of settling. */
static void test_second_write(void **state)
{
	struct scene *scene = *state;
	played.second.up = true;
	played.writing = WRITE_LOST;
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(scene->count, 1);
	assert_int_equal(result->code, STATUS_OK);
	assert_string_equal(result->server, "dc2");
	assert_int_equal(played.written, 1);
	assert_int_equal(played.second.written, 1);
	assert_string_equal(played.second.password, GOOD);
	const struct journal_entry *entry = entry_of(scene, result);
	assert_string_equal(entry->server, "dc1");
	assert_string_equal(entry->second_server, "dc2");
	assert_memory_equal(entry->second_invocation_id, there, 16);
	assert_int_equal(entry->second_committed_usn, 7500);
	assert_int_equal(entry->second_password_version, 2);
	assert_true(entry->counts);
	assert_int_equal(limits_in_flight(scene->limits), 0);
	/* It counted once: two an hour are allowed. */
	played.writing = WRITE_GOOD;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_AGENT_THROTTLED);
}

/* The disk is slow, and the moment comes at which the service would be told of settling. */
static void test_nothing_is_told_before_it_is_recorded(void **state)
{
	struct scene *scene = *state;
	char path[64];
	snprintf(path, sizeof path, "%s/journal.db", scene->folder);
	played.second.up = true;
	played.writing = WRITE_LOST;
	played.stalls = path;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	while (!played.stalling)
		event_base_loop(scene->base, EVLOOP_ONCE);
	for (int i = 0; i < 3; i++)
		run_for(scene, 500);
	assert_int_equal(scene->count, 0);
	sqlite3_close(played.stalling);
	run_until(scene, 1);
	assert_int_equal(scene->count, 1);
	assert_int_equal(scene->results[0].code, STATUS_OK);
}

static void test_second_unlock(void **state)
{
	struct scene *scene = *state;
	played.second.up = true;
	played.alice.locked = played.alice.lockout_time_set = true;
	played.writing = WRITE_LOST;
	assert_int_equal(ask_one(scene, (struct ask){ OP_UNLOCK })->code, STATUS_OK);
	assert_int_equal(played.second.written, 1);
	assert_string_equal(played.second.password, "");
}

/* The truth is read instead: nothing is written to dc2. */
static void assert_no_second(struct scene *scene, enum status code)
{
	played.second.up = true;
	played.writing = played.writing == WRITE_GOOD ? WRITE_LOST : played.writing;
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_string_equal(status_code(result->code), status_code(code));
	assert_int_equal(played.written, 1);
	assert_int_equal(played.second.written, 0);
}

/* A write through dc1 has come there by replication: whose it is the bind at dc1 says. */
static void replicate(void)
{
	played.second.version = 3;
	played.second.usn = 1501;
}

static void test_second_server_has_the_first_write(void **state)
{
	replicate();
	played.writing = WRITE_LOST_APPLIED;
	assert_no_second(*state, STATUS_OK);
	assert_int_equal(played.verified, 1);
	assert_false(played.tried_on_second);
}

static void test_first_write_comes_while_the_second_is_prepared(void **state)
{
	played.second.replicated = true;
	played.writing = WRITE_LOST_APPLIED;
	assert_no_second(*state, STATUS_OK);
	assert_int_equal(played.verified, 1);
}

/* Ours was lost, and an administrator set it through dc1 within the same second: one write, as if it were ours. dc1 is not to be read for a while. */
static void test_second_server_has_anothers_write(void **state)
{
	replicate();
	played.right = "somebody-elses";
	played.writing = WRITE_LOST_APPLIED;
	played.second.stands_in = 3;
	assert_no_second(*state, STATUS_DIRECTORY_TIMEOUT);
	assert_int_equal(played.verified, 1);
	assert_false(played.tried_on_second);
	assert_true(played.located > 4);
}

/* dc1 does not come back: the record has to do in the end. */
static void test_second_server_alone_has_the_first_write(void **state)
{
	int64_t began = clock_monotonic_us();
	replicate();
	played.writing = WRITE_LOST_APPLIED;
	played.second.stands_in = UINT32_MAX - 1;
	assert_no_second(*state, STATUS_OK);
	assert_int_equal(played.verified, 0);
	assert_true(clock_monotonic_us() - began >= ((struct scene *)*state)->settings.settling_limit_ms * 750);
}

/* Both answers were lost, and what the bind at dc2 has shown to be another's there is no more ours at dc1. */
static void test_anothers_write_is_anothers_everywhere(void **state)
{
	played.second.up = true;
	played.second.writing = WRITE_LOST;
	played.second.replicated_since = true;
	played.right = "somebody-elses";
	played.second.stands_in = 1;
	played.writing = WRITE_LOST_APPLIED;
	const struct result *result = ask_one(*state, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(played.second.written, 1);
	assert_int_equal(played.verified, 1);
	assert_true(played.tried_on_second);
	assert_int_not_equal(result->code, STATUS_OK);
}

/* An administrator has set it on dc2 since. */
static void test_no_second_write_over_another(void **state)
{
	played.second.version = 3;
	played.second.usn = 7400;
	memcpy(played.second.originator, there, 16);
	played.second.written_at_s = clock_now_ms() / 1000 + 1;
	assert_no_second(*state, STATUS_DIRECTORY_TIMEOUT);
}

static void it_is_suspended(void) { stood_still_us += 15000000; }

/* What another agent has written there for this very operation, or somebody while this host was suspended behind the first write, is no older than the request. */
static void test_no_second_write_over_an_earlier_attempt(void **state)
{
	static const struct { int64_t first_ago_s, written_ago_s; bool early, suspended; unsigned written; } rows[] = {
		{ 8, 5, false, false, 0 }, { 8, 100, false, false, 0 }, { 0, 5, true, false, 0 }, { 0, 5, false, true, 0 },
		{ 8, 3600, false, false, 1 }, { 0, 3600, true, false, 1 }, { 0, 5, false, false, 1 }, { 0, 60, false, true, 1 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		int64_t now_s = clock_now_ms() / 1000;
		played.second.up = true;
		played.second.version = 3;
		played.second.usn = 7400;
		memcpy(played.second.originator, there, 16);
		played.second.written_at_s = now_s - rows[i].written_ago_s;
		played.written_at_s = now_s - 3600;
		played.writing = WRITE_LOST;
		played.while_waiting[0] = rows[i].suspended ? it_is_suspended : NULL;
		const struct result *result = ask_one(*state, (struct ask){ OP_RESET, GOOD, .early = rows[i].early, .first_iat = rows[i].first_ago_s ? now_s - rows[i].first_ago_s : 0 });
		assert_int_equal(played.second.written, rows[i].written);
		assert_string_equal(status_code(result->code), rows[i].written ? "ok" : "directory.timeout");
		assert_int_equal(played.written, 1);
		assert_int_equal(played.verified, 0);
	}
}

/* Two writes behind: what dc1 holds would win in the end. */
static void test_no_second_write_where_it_would_not_stand(void **state)
{
	played.version = 4;
	assert_no_second(*state, STATUS_DIRECTORY_TIMEOUT);
}

/* One write behind: the same version, and the later second wins. */
static void test_second_write_on_a_stale_server(void **state)
{
	struct scene *scene = *state;
	played.version = 3;
	played.written_at_s = clock_now_ms() / 1000 - 60;
	played.second.up = true;
	played.second.written_at_s = clock_now_ms() / 1000 - 3600;
	played.writing = WRITE_LOST;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	assert_int_equal(played.second.written, 1);
}

static void test_no_second_write_out_of_scope(void **state)
{
	played.second.moves_out = true;
	assert_no_second(*state, STATUS_DIRECTORY_TIMEOUT);
	assert_true(played.second.rechecked > 1);
}

/* Whatever dc2 says, the first one's fate is what counts. */
static void test_refused_second_write(void **state)
{
	struct scene *scene = *state;
	played.second.up = true;
	played.second.writing = WRITE_REJECTED;
	played.writing = WRITE_LOST;
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(result->code, STATUS_DIRECTORY_TIMEOUT);
	assert_int_equal(played.second.written, 1);
	assert_int_equal(result->rule_count, 0);
	assert_string_equal(result->server, "dc1");
	assert_string_equal(scene->results[0].server, "dc1");
	assert_int_equal(scene->results[0].code, STATUS_SETTLING);
	assert_false(entry_of(scene, result)->counts);
}

static void test_refused_second_write_of_an_applied_first(void **state)
{
	struct scene *scene = *state;
	played.second.up = true;
	played.second.writing = WRITE_REJECTED;
	played.writing = WRITE_LOST_APPLIED;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	assert_int_equal(played.second.written, 1);
}

static void test_second_write_lost_and_applied(void **state)
{
	struct scene *scene = *state;
	played.second.up = true;
	played.second.writing = WRITE_LOST_APPLIED;
	played.writing = WRITE_LOST;
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(result->code, STATUS_OK);
	assert_string_equal(result->server, "dc2");
	assert_int_equal(played.second.written, 1);
}

static void test_both_writes_lost(void **state)
{
	struct scene *scene = *state;
	played.second.up = true;
	played.second.writing = played.writing = WRITE_LOST;
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(result->code, STATUS_DIRECTORY_TIMEOUT);
	assert_int_equal(played.written, 1);
	assert_int_equal(played.second.written, 1);
	assert_false(entry_of(scene, result)->counts);
}

/* The agent ends after the second write was lost: both intents are settled, and nothing is written. */
static void crash_with_two_intents(struct scene *scene, enum writing second, enum status code)
{
	played.second.up = true;
	played.second.writing = second;
	played.writing = WRITE_LOST;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	while (scene->count == 0)
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_int_equal(scene->results[0].code, STATUS_SETTLING);
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(requests_settling(scene->requests), 1);
	run_until(scene, 1);
	assert_string_equal(status_code(scene->results[1].code), status_code(code));
	assert_string_equal(scene->results[1].request_id, scene->results[0].request_id);
	assert_int_equal(played.written, 1);
	assert_int_equal(played.second.written, 1);
}

/* Each write's loss is told by its own intent: between the two an administrator may have written through the first server. */
static void test_crash_with_two_intents_far_apart(void **state)
{
	static const struct { unsigned behind_s; bool on_second; enum status code; } rows[] = { { 1, false, STATUS_OK }, { 12, false, STATUS_OUTCOME_UNKNOWN }, { 20, true, STATUS_OK }, { 32, true, STATUS_OUTCOME_UNKNOWN } };
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		struct scene *scene = *state;
		int64_t began_s = clock_now_ms() / 1000;
		played.stepwise = played.second.up = true;
		played.second.writing = played.writing = WRITE_LOST;
		played.alice.policy.lockout_threshold = 1; /* no bind */
		ask(scene, (struct ask){ OP_RESET, GOOD });
		while (played.written == 0)
			event_base_loop(scene->base, EVLOOP_ONCE);
		clock_ahead_ms = 20000;
		while (scene->count == 0)
			event_base_loop(scene->base, EVLOOP_ONCE);
		assert_int_equal(played.second.written, 1);
		close_scene(scene);
		clock_ahead_ms = 40000;
		played.stepwise = false;
		if (rows[i].on_second) {
			played.second.version++;
			played.second.usn = 9000;
			memcpy(played.second.originator, there, 16);
			played.second.written_at_s = began_s + rows[i].behind_s;
		} else {
			played.version++;
			played.usn = 9000;
			played.written_at_s = began_s + rows[i].behind_s;
		}
		open_scene(scene);
		run_until(scene, 1);
		assert_string_equal(status_code(scene->results[scene->count - 1].code), status_code(rows[i].code));
	}
}

static void test_crash_with_two_intents(void **state) { crash_with_two_intents(*state, WRITE_LOST_APPLIED, STATUS_OK); }
static void test_crash_with_two_intents_not_applied(void **state) { crash_with_two_intents(*state, WRITE_LOST, STATUS_DIRECTORY_UNAVAILABLE); }

/* Before anything was sent the request moves on to another server as if it had begun there. */
static void test_lost_before_it_was_sent(void **state)
{
	struct scene *scene = *state;
	played.unsent = true;
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(scene->count, 1);
	assert_int_equal(result->code, STATUS_OK);
	assert_int_equal(played.written, 2);
	assert_int_equal(played.located, 2);
	assert_string_equal(entry_of(scene, result)->second_server, "");
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_AGENT_THROTTLED);
}

/* Likewise where the recheck or the write cannot even be begun. */
static void test_lost_behind_the_intent(void **state)
{
	struct scene *scene = *state;
	for (int lost = LOST_BEFORE_RECHECK; lost <= LOST_BEFORE_WRITE; lost++) {
		unsigned written = played.written, located = played.located;
		played.lost = lost;
		const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
		assert_int_equal(result->code, STATUS_OK);
		assert_int_equal(played.written, written + 1);
		assert_int_equal(played.located, located + 2);
	}
}

/* Back on dc1, which has not taken over what dc2 holds: the user is looked for on dc2 again. */
static void test_the_server_of_the_last_write_is_sought(void **state)
{
	struct scene *scene = *state;
	played.second.up = true;
	played.writing = WRITE_LOST;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	played.writing = WRITE_GOOD;
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(result->code, STATUS_OK);
	assert_string_equal(result->server, "dc2");
	assert_int_equal(played.written, 1);
	assert_int_equal(played.second.written, 2);
}

/* dc2 took two writes that dc1 knows nothing of, and is gone: dc2's would win in the end, whatever dc1 says now. */
static void test_no_answer_that_would_not_stand(void **state)
{
	struct scene *scene = *state;
	played.second.up = true;
	played.second.version = 3;
	played.writing = WRITE_LOST;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	played.second.gone = true;
	played.writing = WRITE_GOOD;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_DIRECTORY_UNAVAILABLE);
	assert_int_equal(played.written, 1);
	/* Nor after a restart. */
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_DIRECTORY_UNAVAILABLE);
	assert_int_equal(played.written, 1);
	/* Once it has them it may be written to. */
	played.version = 4;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	assert_int_equal(played.written, 2);
}

/* Records without versions (flavor ldap) say nothing of who is ahead: the server of the last write is not waited for. */
static void test_without_versions_no_server_is_ahead(void **state)
{
	struct scene *scene = *state;
	played.version = played.second.version = 0;
	played.second.stands_in = 3;
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
	const struct result *result = ask_one(scene, (struct ask){ OP_RESET, GOOD });
	assert_int_equal(result->code, STATUS_OK);
	assert_string_equal(result->server, "dc2");
}

static void test_unverified_frames_are_bounded(void **state)
{
	struct scene *scene = *state;
	for (unsigned i = 0; i < 15; i++)
		requests_handle_unverified(scene->requests, 0, bytes_of_string("forged"), JOSE_SIGNATURE);
	assert_in_range(scene->count, 9, 11);
	assert_int_equal(scene->results[0].code, STATUS_REQUEST_SIGNATURE);
	assert_string_equal(scene->results[0].reason, "signature");
	assert_string_equal(scene->results[0].request_id, "");
	assert_int_equal(strlen(scene->results[0].frame_sha256), 64);
	assert_int_equal(journal_unacknowledged(scene->journal), 0);
}

static void ignore_status(enum status status, void *arg) {}

static void bring_unverified(struct scene *scene, const char *frame)
{
	requests_handle_unverified(scene->requests, 0, bytes_of_string(frame), JOSE_KID);
}

/* Taken in and written; then its key is dropped, and it is delivered again. */
static void test_a_known_frame_is_never_called_unverified(void **state)
{
	struct scene *scene = *state;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	bring_unverified(scene, scene->asked);
	assert_int_equal(scene->count, 0);
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_OK);
	for (unsigned count = 1; count < 4; count++) {
		bring_unverified(scene, scene->asked);
		assert_int_equal(scene->count, count + 1);
		assert_int_equal(scene->results[count].code, STATUS_OK);
		assert_string_equal(scene->results[count].request_id, scene->results[0].request_id);
		if (count == 1) {
			close_scene(scene);
			open_scene(scene);
		} else if (count == 2)
			journal_acknowledge(scene->journal, scene->results[0].request_id);
	}
	assert_int_equal(played.written, 1);
	/* Other bytes were not taken in. */
	AUTO_FREE char *other = strdup(scene->asked);
	other[1] = ' ';
	bring_unverified(scene, other);
	assert_int_equal(scene->count, 5);
	assert_int_equal(scene->results[4].code, STATUS_REQUEST_SIGNATURE);
	assert_string_equal(scene->results[4].request_id, "");
}

/* It sets nothing going either: what waits for its delivery goes on waiting, and a crash's write is settled by the record alone. */
static void test_a_known_frame_that_does_not_verify_is_no_delivery(void **state)
{
	struct scene *scene = *state;
	played.right = GOOD;
	crash_in_settling(scene, WRITE_REPLACED);
	bring_unverified(scene, scene->asked);
	run_until(scene, 1);
	assert_int_equal(scene->results[scene->count - 1].code, STATUS_OUTCOME_UNKNOWN);
	assert_int_equal(played.verified, 0);
	for (unsigned i = 0; i < scene->count; i++)
		assert_int_not_equal(scene->results[i].code, STATUS_REQUEST_SIGNATURE);
}

/* The signature's bytes are not the message's: whoever sees one can make another that is good. */
static void test_the_other_signature_is_the_same_message(void **state)
{
	struct scene *scene = *state;
	char id[UUID_SIZE];
	AUTO_FREE char *payload = build_frame(OP_UNLOCK, 0, id);
	static const char *const forms[] = { "h.p.one", "h.p.other", "h.q.one" };
	played.alice.lockout_time_set = true;
	for (unsigned i = 0; i < 3; i++) {
		unsigned ended = scene->ended;
		requests_handle(scene->requests, 0, bytes_of_string(payload), bytes_of_string(forms[i]), clock_monotonic_us());
		if (i != 1)
			run_until(scene, ended + 1);
		assert_int_equal(scene->count, i + 1);
		assert_int_equal(scene->results[i].code, i == 2 ? STATUS_REQUEST_REPLAYED : STATUS_OK);
	}
	assert_string_equal(scene->results[1].request_id, id);
	bring_unverified(scene, "h.p.third");
	assert_int_equal(scene->results[3].code, STATUS_OK);
	assert_int_equal(played.written, 1);
	/* The service knows its frame by all of it. */
	uint8_t hash[32];
	char text[65];
	sha256(bytes_of_string(forms[2]), hash);
	hex_encode(bytes_of(hash, 32), text);
	assert_string_equal(scene->results[2].frame_sha256, text);
}

/* An older version wrote the hash of the whole frame. */
static void test_row_of_an_older_version(void **state)
{
	struct scene *scene = *state;
	char id[UUID_SIZE];
	AUTO_FREE char *payload = build_frame(OP_UNLOCK, 0, id);
	struct journal_entry entry = { .exp = clock_now_ms() / 1000 + 30, .state = JOURNAL_OUTCOME, .op = "unlock", .code = "user.not_found", .outcome_at_ms = clock_now_ms() };
	strcpy(entry.request_id, id);
	sha256(bytes_of_string("h.p.one"), entry.frame_sha256);
	unsigned ended = scene->ended;
	assert_int_equal(journal_outcome(scene->journal, &entry, ignore_status, NULL), STATUS_OK);
	requests_handle(scene->requests, 0, bytes_of_string(payload), bytes_of_string("h.p.one"), clock_monotonic_us());
	bring_unverified(scene, "h.p.one");
	assert_int_equal(scene->count, 0);
	assert_int_equal(scene->ended, ended);
	requests_handle(scene->requests, 0, bytes_of_string(payload), bytes_of_string("h.p.other"), clock_monotonic_us());
	assert_int_equal(scene->results[0].code, STATUS_REQUEST_REPLAYED);
}

static void test_memory_is_out_while_verifying(void **state)
{
	struct scene *scene = *state;
	requests_handle_unverified(scene->requests, 0, bytes_of_string("anything"), JOSE_INTERNAL);
	assert_int_equal(scene->count, 1);
	assert_int_equal(scene->results[0].code, STATUS_AGENT_INTERNAL);
	assert_null(scene->results[0].reason);
	assert_string_equal(scene->results[0].request_id, "");
	assert_int_equal(strlen(scene->results[0].frame_sha256), 64);
}

#define OLD "Old-Marble-Step-7"

static struct ask change_of(const char *old, const char *new)
{
	return (struct ask){ OP_CHANGE, .password = new, .old_password = old };
}

static void test_change(void **state)
{
	struct scene *scene = *state;
	played.right = OLD;
	const struct result *result = ask_one(scene, change_of(OLD, GOOD));
	assert_int_equal(result->code, STATUS_OK);
	assert_string_equal(played.password, GOOD);
	assert_string_equal(played.old_password, OLD);
	assert_false(played.enforced || played.cleared_lockout || played.must_change);
	assert_int_equal(result->was_locked, -1);
	assert_true(entry_of(scene, result)->counts && entry_of(scene, result)->sets_password);
	assert_int_equal(played.written, 1);
}

/* Where it may have been done before (in the agent's first second, when its journal may have been lost; by another agent), that the user has the password shows nothing if he had it anyway. */
static void test_change_to_the_same_that_may_have_been_done(void **state)
{
	static const struct { const char *old; int written_ago_s; bool early, tried; unsigned verified, written; enum status code; } rows[] = {
		{ GOOD, 2, true, false, 0, 0, STATUS_OUTCOME_UNKNOWN }, { GOOD, 2, false, true, 0, 0, STATUS_OUTCOME_UNKNOWN },
		{ GOOD, 2, false, false, 0, 1, STATUS_POLICY_HISTORY_OR_FILTER }, { GOOD, 3600, true, false, 0, 1, STATUS_POLICY_HISTORY_OR_FILTER },
		{ OLD, 2, true, false, 1, 0, STATUS_OK }, { OLD, 2, false, true, 1, 0, STATUS_OK },
	};
	int64_t now_s = clock_now_ms() / 1000;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		played.right = GOOD;
		played.written_at_s = now_s - rows[i].written_ago_s;
		played.writing = WRITE_REJECTED;
		assert_int_equal(ask_one(*state, (struct ask){ OP_CHANGE, .password = GOOD, .old_password = rows[i].old, .early = rows[i].early, .first_iat = rows[i].tried ? now_s - 5 : 0 })->code, rows[i].code);
		assert_int_equal(played.verified, rows[i].verified);
		assert_int_equal(played.written, rows[i].written);
	}
}

/* Of a change in the user's own right the bind was lost: the old password may have been compared, and is not tried once more elsewhere. */
static void test_lost_after_it_was_tried(void **state)
{
	struct scene *scene = *state;
	played.right = OLD;
	played.unsent = played.tried = true;
	const struct result *result = ask_one(scene, change_of(OLD, GOOD));
	assert_int_equal(result->code, STATUS_DIRECTORY_UNAVAILABLE);
	assert_int_equal(played.written, 1);
}

static void test_refused_changes(void **state)
{
	struct scene *scene = *state;
	played.right = OLD;
	/* locked: the directory is not asked */
	played.alice.locked = played.alice.lockout_time_set = true;
	assert_int_equal(ask_one(scene, change_of(OLD, GOOD))->code, STATUS_USER_LOCKED);
	played.alice.locked = false;
	/* a server without the control does not matter, and the minimum age always does */
	played.policy_control = false;
	played.alice.policy.min_age_s = 86400;
	played.alice.pwd_last_set_s = clock_now_ms() / 1000 - 3600;
	assert_int_equal(ask_one(scene, change_of(OLD, GOOD))->code, STATUS_POLICY_TOO_RECENT);
	played.alice.policy.min_age_s = 0;
	assert_int_equal(ask_one(scene, change_of(OLD, "short"))->code, STATUS_POLICY_TOO_SHORT);
	assert_int_equal(played.written, 0);
	/* by the directory */
	assert_int_equal(ask_one(scene, change_of("wrong", GOOD))->code, STATUS_CREDENTIAL_WRONG);
	assert_false(entry_of(scene, &scene->results[scene->count - 1])->counts);
	played.writing = WRITE_REJECTED;
	assert_int_equal(ask_one(scene, change_of(OLD, GOOD))->code, STATUS_POLICY_HISTORY_OR_FILTER);
	played.writing = WRITE_DENIED;
	assert_int_equal(ask_one(scene, change_of(OLD, GOOD))->code, STATUS_DIRECTORY_DENIED);
	played.alice.cannot_change = true;
	assert_int_equal(ask_one(scene, change_of(OLD, GOOD))->code, STATUS_USER_CANNOT_CHANGE);
	assert_int_equal(played.written, 3);
}

static void allow_verify(struct scene *scene)
{
	char *const operations[] = { strdup("verify"), strdup("change") };
	for (size_t i = 0; i < scene->settings.operations.count; i++)
		free(scene->settings.operations.items[i]);
	memcpy(scene->settings.operations.items, operations, sizeof operations);
	scene->settings.operations.count = 2;
}

static void test_verify(void **state)
{
	struct scene *scene = *state;
	const struct ask right = { OP_VERIFY, .old_password = OLD }, wrong = { OP_VERIFY, .old_password = "wrong" };
	played.right = OLD;
	assert_int_equal(ask_one(scene, right)->code, STATUS_REQUEST_UNSUPPORTED); /* not unless it is written out */
	assert_int_equal(played.verified, 0);
	allow_verify(scene);
	/* the directory judges the state, the agent the scope */
	played.alice.uac |= UAC_ACCOUNTDISABLE;
	const struct result *result = ask_one(scene, right);
	assert_int_equal(result->code, STATUS_VERIFIED);
	assert_string_equal(result->user_guid, ALICE);
	assert_int_equal(entry_of(scene, result)->intent_at_ms, 0);
	played.alice.admin_count = 1;
	assert_int_equal(ask_one(scene, right)->code, STATUS_USER_PROTECTED);
	assert_int_equal(played.verified, 1);
	played.alice.admin_count = 0;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(ask_one(scene, wrong)->code, STATUS_CREDENTIAL_WRONG);
	/* one that is not answered may have been compared */
	played.mute = true;
	assert_int_equal(ask_one(scene, right)->code, STATUS_DIRECTORY_TIMEOUT);
	played.mute = false;
	result = ask_one(scene, right);
	assert_int_equal(result->code, STATUS_AGENT_THROTTLED);
	assert_in_range(result->retry_after, 3590, 3600);
	played.alice.uac &= ~UAC_ACCOUNTDISABLE;
	assert_int_equal(ask_one(scene, change_of(OLD, GOOD))->code, STATUS_AGENT_THROTTLED);
	assert_int_equal(played.verified, 4);
	assert_int_equal(played.written, 0);
	/* they are in the journal, and so is the one that was not answered */
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(ask_one(scene, wrong)->code, STATUS_AGENT_THROTTLED);
	assert_int_equal(played.verified, 4);
}

static void ignore_outcome(enum status status, void *arg)
{
}

/* Its rows say it by their code alone: an upgrade lets nobody guess on. */
static void test_guesses_of_an_older_version(void **state)
{
	struct scene *scene = *state;
	const struct ask wrong = { OP_VERIFY, .old_password = "wrong" };
	played.right = OLD;
	allow_verify(scene);
	struct journal_entry older = *entry_of(scene, ask_one(scene, wrong));
	older.wrong_at_ms = 0;
	for (unsigned i = 0; i < 2; i++) {
		uuid_random(older.request_id);
		assert_int_equal(journal_outcome(scene->journal, &older, ignore_outcome, NULL), STATUS_OK);
	}
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(ask_one(scene, wrong)->code, STATUS_AGENT_THROTTLED);
	assert_int_equal(played.verified, 1);
}

/* What the directory says in words that are not known may mean a wrong password; that it cannot say may not. */
static void test_guesses_not_understood(void **state)
{
	struct scene *scene = *state;
	const struct ask wrong = { OP_VERIFY, .old_password = "wrong" };
	played.right = OLD;
	allow_verify(scene);
	played.says = STATUS_DIRECTORY_BUSY;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(ask_one(scene, wrong)->code, STATUS_DIRECTORY_BUSY);
	played.says = STATUS_DIRECTORY_CREDENTIAL;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(ask_one(scene, wrong)->code, STATUS_DIRECTORY_CREDENTIAL);
	assert_int_equal(ask_one(scene, wrong)->code, STATUS_AGENT_THROTTLED);
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(ask_one(scene, wrong)->code, STATUS_AGENT_THROTTLED);
	assert_int_equal(played.verified, 7);
}

/* The directory would lock him at the fourth. */
static void test_guesses_below_the_lockout(void **state)
{
	struct scene *scene = *state;
	const struct ask wrong = { OP_VERIFY, .old_password = "wrong" };
	played.right = OLD;
	played.alice.policy.lockout_threshold = 4;
	allow_verify(scene);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(ask_one(scene, wrong)->code, STATUS_CREDENTIAL_WRONG);
	assert_int_equal(ask_one(scene, wrong)->code, STATUS_AGENT_THROTTLED);
	assert_int_equal(played.verified, 2);
}

/* Together they find no more places than one after the other. */
static void test_guesses_at_once(void **state)
{
	struct scene *scene = *state;
	const struct ask wrong = { OP_VERIFY, .old_password = "wrong" };
	unsigned throttled = 0;
	played.right = OLD;
	allow_verify(scene);
	for (unsigned i = 0; i < 2; i++)
		ask_one(scene, wrong);
	for (unsigned i = 0; i < 3; i++)
		ask(scene, wrong);
	run_until(scene, 5);
	for (unsigned i = 0; i < scene->count; i++)
		throttled += scene->results[i].code == STATUS_AGENT_THROTTLED;
	assert_int_equal(throttled, 2);
	assert_int_equal(played.verified, 3);
}

static void test_lookup(void **state)
{
	struct scene *scene = *state;
	int64_t now_s = clock_now_ms() / 1000;
	played.alice.user_principal_name = (char *)"alice@corp.example.com";
	played.alice.uac |= UAC_ACCOUNTDISABLE;
	played.alice.locked = true;
	played.alice.pwd_last_set_s = now_s - 10;
	played.alice.password_expires_s = INT64_MAX;
	const struct result *result = ask_one(scene, (struct ask){ OP_LOOKUP });
	assert_int_equal(result->code, STATUS_FOUND); /* whatever the state */
	assert_string_equal(result->account->user_principal_name, "alice@corp.example.com");
	assert_string_equal(result->account->sam_account_name, "alice");
	assert_null(result->account->display_name);
	assert_true(result->account->disabled && result->account->locked);
	assert_false(result->account->expired || result->account->must_change || result->account->password_never_expires || result->account->cannot_change);
	assert_int_equal(result->account->password_last_set, now_s - 10);
	assert_int_equal(result->account->password_expires_at, 0);
	/* in the year 30828: a receiver would not take it */
	played.alice.password_expires_s = 910692730085;
	assert_int_equal(ask_one(scene, (struct ask){ OP_LOOKUP })->account->password_expires_at, 0);
	assert_string_equal(result->user_guid, ALICE);
	assert_int_equal(entry_of(scene, result)->state, JOURNAL_OUTCOME);
	assert_int_equal(entry_of(scene, result)->intent_at_ms, 0);
	played.alice.pwd_last_set_s = 0;
	played.alice.account_expires_s = now_s - 1;
	played.alice.password_expires_s = now_s + 5;
	result = ask_one(scene, (struct ask){ OP_LOOKUP });
	assert_true(result->account->expired && result->account->must_change);
	assert_int_equal(result->account->password_expires_at, now_s + 5);
	played.alice.uac |= UAC_DONT_EXPIRE_PASSWORD;
	result = ask_one(scene, (struct ask){ OP_LOOKUP });
	assert_true(result->account->password_never_expires && !result->account->must_change);
	/* of who is protected nothing is told */
	played.alice.admin_count = 1;
	result = ask_one(scene, (struct ask){ OP_LOOKUP });
	assert_int_equal(result->code, STATUS_USER_PROTECTED);
	assert_null(result->account);
	assert_string_equal(result->user_guid, "");
	assert_int_equal(played.rechecked + played.written, 0);
}

static void test_policy(void **state)
{
	struct scene *scene = *state;
	int64_t now_s = clock_now_ms() / 1000;
	played.alice.policy = (struct password_policy){ .source = POLICY_PSO, .min_length = 16, .history = 24, .min_age_s = 86400, .max_age_s = 864000, .lockout_threshold = 5, .lockout_duration_s = 1800 };
	played.alice.pwd_last_set_s = now_s - 3600;
	const struct result *result = ask_one(scene, (struct ask){ OP_POLICY });
	assert_int_equal(result->code, STATUS_FOUND);
	const struct result_policy *policy = result->policy;
	assert_int_equal(policy->source, RESULT_POLICY_PSO);
	assert_int_equal(policy->min_length, 16);
	assert_int_equal(policy->history, 24);
	assert_int_equal(policy->min_age, 86400);
	assert_int_equal(policy->max_age, 864000);
	assert_int_equal(policy->possible_at, now_s - 3600 + 86400);
	assert_int_equal(policy->lockout_threshold, 5);
	assert_int_equal(policy->lockout_duration, 1800);
	assert_true(policy->enforced && !policy->complexity);
	/* "never" in the way of some tools: 10,675,199 days */
	played.alice.policy.min_age_s = 922337203685;
	assert_int_equal(ask_one(scene, (struct ask){ OP_POLICY })->policy->possible_at, 253402300799);
	played.policy_control = false;
	played.alice.pwd_last_set_s = 0; /* must change: no age holds it back */
	result = ask_one(scene, (struct ask){ OP_POLICY });
	assert_false(result->policy->enforced);
	assert_int_equal(result->policy->possible_at, 0);
	played.alice.policy.source = POLICY_UNKNOWN;
	result = ask_one(scene, (struct ask){ OP_POLICY });
	assert_int_equal(result->code, STATUS_FOUND);
	assert_int_equal(result->policy->source, RESULT_POLICY_UNKNOWN);
	assert_int_equal(result->policy->min_length, 0);
	assert_int_equal(result->warnings, WARNING_POLICY_UNREADABLE);
}

static void test_questions_a_minute(void **state)
{
	struct scene *scene = *state;
	struct limits_settings limits;
	settings_limits(&scene->settings, &limits);
	limits.lookups_per_minute = 2;
	limits_reconfigure(scene->limits, &limits);
	assert_int_equal(ask_one(scene, (struct ask){ OP_LOOKUP })->code, STATUS_FOUND);
	assert_int_equal(ask_one(scene, (struct ask){ OP_POLICY })->code, STATUS_FOUND);
	unsigned located = played.located;
	assert_int_equal(ask_one(scene, (struct ask){ OP_LOOKUP })->code, STATUS_AGENT_THROTTLED);
	assert_in_range(scene->results[scene->count - 1].retry_after, 1, 60);
	assert_int_equal(played.located, located); /* the directory was not asked */
	assert_int_equal(ask_one(scene, (struct ask){ OP_RESET, GOOD })->code, STATUS_OK);
}

/* Settled as a reset is, but not tried elsewhere: the old password would be compared again. */
static void test_lost_answer_of_a_change(void **state)
{
	struct scene *scene = *state;
	played.writing = WRITE_LOST_APPLIED;
	ask(scene, change_of(OLD, GOOD));
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_SETTLING);
	assert_int_equal(scene->results[scene->count - 1].code, STATUS_OK);
	assert_int_equal(played.written, 1);
}

/* The end ------------------------------------------------------------------------------------------------------------------------------ */

/* What the journal says at the next start, whenever the agent ended: nothing, where nothing had been done; an outcome, where it is the truth; else an intent. */
static void assert_left_behind(struct scene *scene, const char *request_id)
{
	bool stands = played.right ? strcmp(played.right, GOOD) == 0 : strcmp(played.stands[0], GOOD) == 0 || strcmp(played.stands[1], GOOD) == 0;
	const struct journal_entry *entry = journal_find(scene->journal, request_id);
	unsigned written = played.written + played.second.written;
	if (written)
		assert_non_null(entry);
	if (entry && entry->state == JOURNAL_OUTCOME && (written || !stands))
		assert_int_equal(strcmp(entry->code, "ok") == 0, stands);
	for (unsigned i = 0; i < scene->count; i++)
		assert_true(scene->results[i].code == STATUS_SETTLING || (entry && strcmp(entry->code, status_code(scene->results[i].code)) == 0));
}

/* Nothing is begun while it ends (the directory that is played here sees to that), nobody is told that it goes on, and nothing is told on a guess. */
static void ends_anywhere(void **state, void (*play)(struct ask *ask))
{
	char id[UUID_SIZE];
	uuid_random(id);
	for (unsigned step = 0, ended = 0; !ended; step++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		struct scene *scene = *state;
		scene->settings.settling_delay_ms = 100;
		played.stepwise = true;
		struct ask what = { OP_RESET, GOOD, .request_id = id };
		play(&what);
		ask(scene, what);
		for (unsigned i = 0; i < step && !scene->ended; i++)
			event_base_loop(scene->base, EVLOOP_ONCE);
		unsigned count = scene->count;
		ended = scene->ended;
		close_scene(scene);
		for (unsigned i = count; i < scene->count; i++)
			assert_int_not_equal(scene->results[i].code, STATUS_SETTLING);
		open_scene(scene);
		assert_left_behind(scene, id);
	}
}

static void play_one(struct ask *ask) {}
static void play_lost(struct ask *ask) { played.writing = WRITE_LOST_APPLIED; }
static void play_anothers(struct ask *ask)
{
	played.writing = WRITE_LOST_APPLIED;
	played.right = "somebody-elses";
}
static void play_second(struct ask *ask)
{
	played.writing = WRITE_LOST;
	played.second.up = true;
	played.second.writing = WRITE_LOST_APPLIED;
}
static void play_another_agent(struct ask *ask)
{
	ask->first_iat = clock_now_ms() / 1000 - 5;
	played.written_at_s = ask->first_iat;
	played.right = GOOD;
}
static void play_another_agent_at_once(struct ask *ask)
{
	play_another_agent(ask);
	played.written_at_s -= 3600;
	played.recheck_finds_s = ask->first_iat + 3;
	played.writing = WRITE_REJECTED;
}
static void test_ends_anywhere(void **state) { ends_anywhere(state, play_one); }
static void test_ends_anywhere_in_settling(void **state) { ends_anywhere(state, play_lost); }
static void test_ends_anywhere_beside_anothers_write(void **state) { ends_anywhere(state, play_anothers); }
static void test_ends_anywhere_in_a_second_write(void **state) { ends_anywhere(state, play_second); }
static void test_ends_anywhere_behind_another_agent(void **state) { ends_anywhere(state, play_another_agent); }
static void test_ends_anywhere_beside_another_agent(void **state) { ends_anywhere(state, play_another_agent_at_once); }

/* A turn that is free while it ends is not taken. */
static void test_ends_while_others_wait(void **state)
{
	struct scene *scene = *state;
	played.stepwise = true;
	for (unsigned i = 0; i < 3; i++)
		ask(scene, (struct ask){ OP_RESET, GOOD });
	while (played.rechecked == 0)
		event_base_loop(scene->base, EVLOOP_ONCE);
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(played.written, 0);
}

/* A refusal that could not be recorded is not told: nothing would remember it at the next start. */
static void test_ends_with_a_full_disk(void **state)
{
	for (unsigned step = 0, ended = 0; !ended; step++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		struct scene *scene = *state;
		struct rlimit before;
		played.stepwise = true;
		ask(scene, (struct ask){ OP_RESET, "short" });
		for (unsigned i = 0; i < step && !scene->ended; i++)
			event_base_loop(scene->base, EVLOOP_ONCE);
		stop_writing(&before);
		if (!scene->ended)
			event_base_loop(scene->base, EVLOOP_ONCE);
		unsigned count = scene->count;
		ended = scene->ended;
		requests_close(scene->requests);
		journal_close(scene->journal);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
		char path[64];
		snprintf(path, sizeof path, "%s/journal.db", scene->folder);
		assert_int_equal(journal_open(scene->base, &(struct journal_settings){ path, 3600000, 1000 }, &scene->journal, NULL), STATUS_OK);
		assert_int_equal(scene->count, count);
	}
}

/* What was only read is forgotten: the service delivers it again, and hears no failure of it. */
static void test_ends_before_the_intent(void **state)
{
	struct scene *scene = *state;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	close_scene(scene);
	open_scene(scene);
	assert_int_equal(scene->count, 0);
	ask_again(scene);
	run_until(scene, 1);
	assert_int_equal(scene->results[0].code, STATUS_OK);
	assert_int_equal(played.written, 1);
}

/* However long it has been settled: the next start may find out. */
static void test_ends_while_the_truth_is_read(void **state)
{
	struct scene *scene = *state;
	scene->settings.settling_limit_ms = 1;
	played.writing = WRITE_LOST;
	played.stepwise = true;
	ask(scene, (struct ask){ OP_RESET, GOOD });
	while (scene->count == 0)
		event_base_loop(scene->base, EVLOOP_ONCE);
	while (played.located < 2)
		event_base_loop(scene->base, EVLOOP_ONCE);
	char id[UUID_SIZE];
	strcpy(id, scene->results[0].request_id);
	close_scene(scene);
	assert_int_equal(scene->count, 1);
	open_scene(scene);
	assert_int_equal(journal_find(scene->journal, id)->state, JOURNAL_INTENT);
}

#define ROW(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		ROW(test_reset), 
		ROW(test_lost_answer_and_anothers_single_write), ROW(test_lost_answer_and_a_clock_that_is_set_back), ROW(test_lost_answer_without_a_timer), ROW(test_an_answer_that_left_it_open), ROW(test_lost_answer_applied_late), ROW(test_lost_answer_and_anothers_write_of_the_same), ROW(test_lost_answer_and_a_mute_bind), ROW(test_what_a_bind_says), ROW(test_no_bind_close_to_a_lockout), ROW(test_no_bind_by_a_policy_that_is_not_known),
		ROW(test_lost_answer_on_a_connection_that_stands), ROW(test_crash_and_delivered_again), ROW(test_crash_and_replaced_and_delivered_again), ROW(test_crash_and_another_frame), ROW(test_crash_behind_the_bind), ROW(test_crash_behind_the_bind_beside_one_write), ROW(test_crash_behind_the_bind_beside_anothers_write), ROW(test_crash_behind_two_binds), ROW(test_crash_behind_a_bind_counts), ROW(test_crash_and_anothers_later_write), ROW(test_lost_answer_of_a_server_without_a_clock), ROW(test_crash_beside_a_server_without_a_clock), ROW(test_another_agent_has_done_it), ROW(test_change_to_the_same_that_may_have_been_done), ROW(test_held_up_until_another_agent_has_done_it), ROW(test_one_wrong_one_an_hour_whatever_is_allowed), ROW(test_bind_on_a_full_disk), ROW(test_bind_on_a_full_disk_of_a_replaced_one), ROW(test_no_success_becomes_a_refusal), ROW(test_nobody_can_tell_what_was_done_before), ROW(test_what_a_lost_journal_knew), ROW(test_an_end_behind_a_lost_journal), ROW(test_a_refusal_behind_a_lost_journal), ROW(test_a_record_that_is_young_or_cannot_be_read), ROW(test_lost_answer_beside_a_young_record), ROW(test_a_young_record_is_no_overtaker), ROW(test_a_refusal_is_held_against_the_record),
		ROW(test_protected_after_the_write), ROW(test_not_in_normalization_form_c), ROW(test_reset_keeps_the_lockout_if_told), ROW(test_check_writes_nothing), ROW(test_unlock), ROW(test_scope_not_known_yet), ROW(test_refusals), ROW(test_disabled_between_reading_and_writing),
		ROW(test_rejected_by_the_directory), ROW(test_delivered_again), ROW(test_nothing_is_written_before_it_is_delivered_again), ROW(test_it_expires_where_it_is_not_delivered_again), ROW(test_what_nobody_else_is_asked_for_goes_on), ROW(test_limits), ROW(test_overload_is_answered_and_not_kept), ROW(test_overload_is_answered_again), ROW(test_overload_is_told_once_it_would_survive), ROW(test_nothing_from_before_a_dropped_refusal), ROW(test_resumed_and_restarted), ROW(test_ahead_of_its_time), ROW(test_nothing_from_before_what_is_forgotten),
		ROW(test_one_at_a_time_for_one_user), ROW(test_no_turn_before_it_expires),
		ROW(test_lost_answer_applied), ROW(test_lost_answer_of_a_stalled_server), ROW(test_lost_answer_not_applied), ROW(test_lost_answer_replaced), ROW(test_others_are_busy_while_one_is_settled),
		ROW(test_lost_answer_and_a_later_write), ROW(test_lost_answer_and_two_writes), ROW(test_lost_answer_applied_by_a_clock_of_its_own), ROW(test_lost_answer_of_a_server_that_comes_back), ROW(test_skew_is_seen_while_reading),
		ROW(test_second_write), ROW(test_nothing_is_told_before_it_is_recorded), ROW(test_second_unlock), ROW(test_second_server_has_the_first_write), ROW(test_first_write_comes_while_the_second_is_prepared), ROW(test_second_server_has_anothers_write), ROW(test_second_server_alone_has_the_first_write), ROW(test_anothers_write_is_anothers_everywhere),
		ROW(test_no_second_write_over_another), ROW(test_no_second_write_over_an_earlier_attempt), ROW(test_no_second_write_where_it_would_not_stand), ROW(test_second_write_on_a_stale_server), ROW(test_no_second_write_out_of_scope),
		ROW(test_refused_second_write), ROW(test_refused_second_write_of_an_applied_first), ROW(test_second_write_lost_and_applied), ROW(test_both_writes_lost),
		ROW(test_crash_with_two_intents), ROW(test_crash_with_two_intents_not_applied), ROW(test_crash_with_two_intents_far_apart), ROW(test_lost_before_it_was_sent), ROW(test_lost_after_it_was_tried), ROW(test_lost_behind_the_intent), ROW(test_the_server_of_the_last_write_is_sought), ROW(test_no_answer_that_would_not_stand), ROW(test_without_versions_no_server_is_ahead),
		ROW(test_change), ROW(test_refused_changes), ROW(test_verify), ROW(test_guesses_at_once), ROW(test_guesses_below_the_lockout), ROW(test_guesses_of_an_older_version), ROW(test_guesses_not_understood), ROW(test_lookup), ROW(test_policy), ROW(test_questions_a_minute),
		ROW(test_what_another_agent_has_done_meanwhile_is_not_done_again), ROW(test_the_channels_loss_is_heard_before_the_write), ROW(test_a_write_that_has_waited_is_still_wanted), ROW(test_a_slow_directory_is_written_to_all_the_same), ROW(test_what_is_written_while_a_write_waits), ROW(test_a_second_write_that_has_waited_is_still_wanted), ROW(test_what_cannot_be_read_is_tried_behind_a_repeated_look), ROW(test_each_write_has_a_look_of_its_own), ROW(test_no_second_write_while_undelivered), ROW(test_read_again_behind_a_wrong_bind),
		ROW(test_lost_answer_and_two_writes_and_a_mute_bind), ROW(test_overtaken_by_another_agent), ROW(test_scope_without_memory_stays), ROW(test_one_bind_before_and_behind_the_write), ROW(test_a_journal_that_cannot_be_written), ROW(test_a_refusal_that_is_forgotten_was_not_told), ROW(test_a_refusal_is_told_when_the_disk_is_well), ROW(test_what_was_done_before_is_no_failure), ROW(test_what_is_ahead_keeps_nobody_out),
		ROW(test_ends_anywhere), ROW(test_ends_anywhere_in_settling), ROW(test_ends_anywhere_beside_anothers_write), ROW(test_ends_anywhere_behind_another_agent), ROW(test_ends_anywhere_beside_another_agent), ROW(test_ends_while_others_wait), ROW(test_ends_with_a_full_disk), ROW(test_ends_anywhere_in_a_second_write), ROW(test_ends_before_the_intent), ROW(test_ends_while_the_truth_is_read),
		ROW(test_lost_answer_of_a_change), ROW(test_intent_of_a_crash_is_settled), ROW(test_unverified_frames_are_bounded), ROW(test_a_known_frame_is_never_called_unverified), ROW(test_a_known_frame_that_does_not_verify_is_no_delivery), ROW(test_the_other_signature_is_the_same_message), ROW(test_row_of_an_older_version), ROW(test_memory_is_out_while_verifying),
	};
	return cmocka_run_group_tests_name("request", tests, NULL, NULL);
}
