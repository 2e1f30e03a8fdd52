{{- define "fedcredit.name" -}}
{{- printf "fedcredit-%s" (.Values.member | replace "_" "-") | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "fedcredit.selector" -}}
app.kubernetes.io/name: fedcredit
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.kind }}
{{- end -}}

{{- define "fedcredit.labels" -}}
{{ include "fedcredit.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "fedcredit.image" -}}
{{- $repository := .Values.image.repository | default (printf "fedcredit-%s" .Values.kind) -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "fedcredit.container" -}}
image: {{ include "fedcredit.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{- define "fedcredit.probe" -}}
exec:
  command: [/opt/fedcredit/bin/python, -I, /opt/fedcredit/probe.py, {{ . }}]
timeoutSeconds: 6
{{- end -}}

{{- define "fedcredit.peer" -}}
namespaceSelector:
  matchLabels: { kubernetes.io/metadata.name: {{ .namespace | quote }} }
podSelector:
  matchLabels: {{- toYaml .podLabels | nindent 4 }}
{{- end -}}
