/* owner: whose files the service's state is. Files that root made in another user's folder would lock that user out, so root becomes that user. */
#ifndef SERVICE_OWNER_H
#define SERVICE_OWNER_H

#include "base/status.h"

/* Where the effective user is root and `directory` belongs to somebody else: becomes that user for good (groups, group, user). Otherwise, and where the
 * folder is not there, nothing happens and no system call that changes users is made. On failure `ret_why` gets a malloc'ed sentence. */
enum status owner_become(const char *directory, char **ret_why) MUST_USE;

#endif
