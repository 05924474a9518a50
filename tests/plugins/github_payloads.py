"""GitHub's webhook bodies, with the fields that GitHub sends (npm @octokit/openapi-webhooks). People are invented."""

from __future__ import annotations

from typing import Any

API = "https://api.github.com"
INSTALLATION = 1234567


def user(login: str = "monalisa", id: int = 1001, type: str = "User") -> dict[str, Any]:
    """A user, an organization's member or a bot."""
    url = f"{API}/users/{login}"
    return {
        "login": login,
        "id": id,
        "node_id": f"U_{id}",
        "avatar_url": f"https://avatars.githubusercontent.com/u/{id}?v=4",
        "gravatar_id": "",
        "url": url,
        "html_url": f"https://github.com/{login}",
        "followers_url": f"{url}/followers",
        "following_url": f"{url}/following{{/other_user}}",
        "gists_url": f"{url}/gists{{/gist_id}}",
        "starred_url": f"{url}/starred{{/owner}}{{/repo}}",
        "subscriptions_url": f"{url}/subscriptions",
        "organizations_url": f"{url}/orgs",
        "repos_url": f"{url}/repos",
        "events_url": f"{url}/events{{/privacy}}",
        "received_events_url": f"{url}/received_events",
        "type": type,
        "user_view_type": "public",
        "site_admin": False,
    }


def repository(owner: str = "octo-org", name: str = "hello-world") -> dict[str, Any]:
    """A public repository of an organization."""
    full_name = f"{owner}/{name}"
    url = f"{API}/repos/{full_name}"
    templates = {
        "archive": "/{archive_format}{/ref}",
        "assignees": "/assignees{/user}",
        "blobs": "/git/blobs{/sha}",
        "branches": "/branches{/branch}",
        "collaborators": "/collaborators{/collaborator}",
        "comments": "/comments{/number}",
        "commits": "/commits{/sha}",
        "compare": "/compare/{base}...{head}",
        "contents": "/contents/{+path}",
        "contributors": "/contributors",
        "deployments": "/deployments",
        "downloads": "/downloads",
        "events": "/events",
        "forks": "/forks",
        "git_commits": "/git/commits{/sha}",
        "git_refs": "/git/refs{/sha}",
        "git_tags": "/git/tags{/sha}",
        "hooks": "/hooks",
        "issue_comment": "/issues/comments{/number}",
        "issue_events": "/issues/events{/number}",
        "issues": "/issues{/number}",
        "keys": "/keys{/key_id}",
        "labels": "/labels{/name}",
        "languages": "/languages",
        "merges": "/merges",
        "milestones": "/milestones{/number}",
        "notifications": "/notifications{?since,all,participating}",
        "pulls": "/pulls{/number}",
        "releases": "/releases{/id}",
        "stargazers": "/stargazers",
        "statuses": "/statuses/{sha}",
        "subscribers": "/subscribers",
        "subscription": "/subscription",
        "tags": "/tags",
        "teams": "/teams",
        "trees": "/git/trees{/sha}",
    }
    return {
        "id": 5001,
        "node_id": "R_5001",
        "name": name,
        "full_name": full_name,
        "private": False,
        "owner": user(owner, 2001, "Organization"),
        "html_url": f"https://github.com/{full_name}",
        "description": "A greeting to everybody",
        "fork": False,
        "url": url,
        **{f"{key}_url": url + path for key, path in templates.items()},
        "created_at": "2026-01-02T03:00:00Z",
        "updated_at": "2026-01-02T03:00:00Z",
        "pushed_at": "2026-01-02T03:00:00Z",
        "git_url": f"git://github.com/{full_name}.git",
        "ssh_url": f"git@github.com:{full_name}.git",
        "clone_url": f"https://github.com/{full_name}.git",
        "svn_url": f"https://github.com/{full_name}",
        "homepage": None,
        "size": 1,
        "stargazers_count": 0,
        "watchers_count": 0,
        "language": None,
        "has_issues": True,
        "has_projects": True,
        "has_downloads": True,
        "has_wiki": True,
        "has_pages": False,
        "has_discussions": False,
        "forks_count": 0,
        "mirror_url": None,
        "archived": False,
        "disabled": False,
        "open_issues_count": 1,
        "license": None,
        "allow_forking": True,
        "is_template": False,
        "web_commit_signoff_required": False,
        "topics": [],
        "visibility": "public",
        "forks": 0,
        "open_issues": 1,
        "watchers": 0,
        "default_branch": "main",
    }


def installation(id: int = INSTALLATION) -> dict[str, Any]:
    """How every webhook of an app names its installation."""
    return {"id": id, "node_id": f"MDIzOkludGVncmF0aW9uSW5zdGFsbGF0aW9u{id}"}


def issues_opened(
    *, sender: dict[str, Any] | None = None, installation_id: int | None = INSTALLATION
) -> dict[str, Any]:
    """`issues`, action `opened`. Without an installation it is as a repository's own webhook sends it."""
    where, author = repository(), user()
    url = f"{where['url']}/issues/1"
    issue = {
        "url": url,
        "repository_url": where["url"],
        "labels_url": f"{url}/labels{{/name}}",
        "comments_url": f"{url}/comments",
        "events_url": f"{url}/events",
        "html_url": f"{where['html_url']}/issues/1",
        "id": 6001,
        "node_id": "I_6001",
        "number": 1,
        "title": "Greetings are not friendly enough",
        "user": author,
        "labels": [],
        "state": "open",
        "locked": False,
        "assignee": None,
        "assignees": [],
        "milestone": None,
        "comments": 0,
        "created_at": "2026-01-02T03:04:00Z",
        "updated_at": "2026-01-02T03:04:00Z",
        "closed_at": None,
        "author_association": "MEMBER",
        "active_lock_reason": None,
        "body": "Let us vote on a friendlier one. 🎉",
        "reactions": {
            "url": f"{url}/reactions",
            "total_count": 0,
            **dict.fromkeys(("+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes"), 0),
        },
        "timeline_url": f"{url}/timeline",
        "performed_via_github_app": None,
        "state_reason": None,
    }
    named = {} if installation_id is None else {"installation": installation(installation_id)}
    return {"action": "opened", "issue": issue, "repository": where, "sender": sender or author, **named}


def push(installation_id: int = INSTALLATION) -> dict[str, Any]:
    """`push`: one commit to the main branch. It has no action."""
    where, before, after = repository(), "6" * 40, "7" * 40
    person = {"name": "Mona Lisa", "email": "monalisa@users.noreply.github.com", "username": "monalisa"}
    commit = {
        "id": after,
        "tree_id": "8" * 40,
        "distinct": True,
        "message": "Greet everybody",
        "timestamp": "2026-01-02T03:04:05Z",
        "url": f"{where['html_url']}/commit/{after}",
        "author": person,
        "committer": person,
        "added": [],
        "removed": [],
        "modified": ["README.md"],
    }
    where["owner"] = {**where["owner"], "name": "octo-org", "email": None}
    where |= {"created_at": 1767322800, "pushed_at": 1767323045, "stargazers": 0, "master_branch": "main"}
    return {
        "ref": "refs/heads/main",
        "before": before,
        "after": after,
        "repository": where,
        "pusher": {"name": "monalisa", "email": "monalisa@users.noreply.github.com"},
        "sender": user(),
        "installation": installation(installation_id),
        "created": False,
        "deleted": False,
        "forced": False,
        "base_ref": None,
        "compare": f"{where['html_url']}/compare/{before[:12]}...{after[:12]}",
        "commits": [commit],
        "head_commit": commit,
    }


def installation_deleted(installation_id: int = INSTALLATION) -> dict[str, Any]:
    """`installation`, action `deleted`: somebody removed the app."""
    return {
        "action": "deleted",
        "installation": {
            "id": installation_id,
            "client_id": "Iv1.0123456789abcdef",
            "account": user("octo-org", 2001, "Organization"),
            "repository_selection": "selected",
            "access_tokens_url": f"{API}/app/installations/{installation_id}/access_tokens",
            "repositories_url": f"{API}/installation/repositories",
            "html_url": f"https://github.com/organizations/octo-org/settings/installations/{installation_id}",
            "app_id": 3001,
            "app_slug": "town-crier",
            "target_id": 2001,
            "target_type": "Organization",
            "permissions": {"issues": "write", "metadata": "read"},
            "events": ["issues", "push"],
            "created_at": "2026-01-02T03:00:00Z",
            "updated_at": "2026-01-02T03:00:00Z",
            "single_file_name": None,
            "has_multiple_single_files": False,
            "single_file_paths": [],
            "suspended_by": None,
            "suspended_at": None,
        },
        "repositories": [
            {
                "id": 5001,
                "node_id": "R_5001",
                "name": "hello-world",
                "full_name": "octo-org/hello-world",
                "private": False,
            }
        ],
        "sender": user(),
    }


def ping() -> dict[str, Any]:
    """`ping`, as GitHub sends it to an app's new webhook: it names no installation."""
    return {
        "zen": "Keep it logically awesome.",
        "hook_id": 4001,
        "hook": {
            "type": "App",
            "id": 4001,
            "name": "web",
            "active": True,
            "events": ["issues", "push"],
            "config": {"content_type": "json", "insecure_ssl": "0", "url": "https://gateway.example/api/hooks/github"},
            "updated_at": "2026-01-02T03:00:00Z",
            "created_at": "2026-01-02T03:00:00Z",
            "app_id": 3001,
        },
    }
