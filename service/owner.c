#include "service/owner.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

static bool become(uid_t uid, gid_t folder_group)
{
	struct passwd facts, *entry = NULL;
	char text[4096];
	/* A user of a container's host may have no entry here: then the folder's group is all there is. */
	if (getpwuid_r(uid, &facts, text, sizeof text, &entry) != 0)
		entry = NULL;
	gid_t gid = entry != NULL ? entry->pw_gid : folder_group;
	if ((entry != NULL ? initgroups(entry->pw_name, gid) : setgroups(0, NULL)) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
		return false;
	errno = EPERM;
	return setuid(0) != 0;
}

enum status owner_become(const char *directory, char **ret_why)
{
	struct stat facts;
	if (geteuid() != 0 || stat(directory, &facts) != 0 || facts.st_uid == 0)
		return STATUS_OK;
	if (become(facts.st_uid, facts.st_gid))
		return STATUS_OK;
	return status_because(STATUS_LOCAL_PERMISSION, ret_why, "%s belongs to user %u, and root cannot become that user: %s; run this as that user", directory,
		(unsigned)facts.st_uid, strerror(errno));
}
